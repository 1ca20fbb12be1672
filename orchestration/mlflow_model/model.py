"""The model that MLflow stores and serves: a list of texts in, labels and scores out.

MLflow keeps this file itself beside the bundle ("models from code") and runs it to load the model,
so nothing is pickled. Texts come as a list of strings or as a data frame whose first column is
`text`.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class XmcModel(PythonModel):
    """Answers with one object per text: `labels`, best first, their `scores`, and `none_of_these`,
    true where no label passed."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle; its arrays are memory-mapped, an encoder waits for the first text."""
        from xmc_core import PipelineModel

        self.model = PipelineModel.load(context.artifacts["bundle"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """`params`: top_k labels per text; beam_size nodes kept at each level of the tree;
        calibrated scores, or the rankers' own; threshold: least score of a label; precision: the
        same, as the wanted percentage of right labels, for a calibrated model."""
        from xmc_core.errors import DataError

        # A signature without names, which a list of strings needs, has MLflow cut a data frame to
        # its first column. Of a list that column is called 0.
        column = model_input.columns[0]
        if column not in ("text", 0):
            raise DataError(
                f"the data frame's first column is {column!r}; the texts must come first, in a "
                "column `text`, or as a list of strings."
            )
        chosen = params or {}
        threshold = chosen.get("threshold")
        if (precision := chosen.get("precision")) is not None:
            threshold = self.model.operating_point(precision).score
        predictions = self.model.predict(
            model_input[column].tolist(),
            top_k=chosen.get("top_k"),
            beam_size=chosen.get("beam_size"),
            calibrated=chosen.get("calibrated"),
            threshold=threshold,
        )
        return [
            {
                "labels": [name for name, _ in row],
                "scores": [score for _, score in row],
                "none_of_these": not row,
            }
            for row in self.model.named(predictions)
        ]


set_model(XmcModel())
