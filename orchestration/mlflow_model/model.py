"""The model that MLflow stores and serves: a list of texts in, labels and scores out.

MLflow keeps this file itself beside the bundle ("models from code") and runs it to load the model,
so nothing is pickled. Texts come as a list of strings or as a data frame with a column `text`.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class XmcModel(PythonModel):
    """Answers with one object per text: `labels`, best first, and their `scores`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle; its arrays are memory-mapped, an encoder waits for the first text."""
        from xmc_core import PipelineModel

        self.model = PipelineModel.load(context.artifacts["bundle"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, list[Any]]]:
        """`params`: top_k labels per text; beam_size nodes kept at each level of the tree."""
        column = "text" if "text" in model_input.columns else model_input.columns[0]
        chosen = params or {}
        predictions = self.model.predict(
            model_input[column].tolist(),
            top_k=chosen.get("top_k"),
            beam_size=chosen.get("beam_size"),
        )
        return [
            {"labels": [name for name, _ in row], "scores": [score for _, score in row]}
            for row in self.model.named(predictions)
        ]


set_model(XmcModel())
