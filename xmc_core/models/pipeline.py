"""A finished pipeline: texts in, ranked labels with names out.

<folder>/manifest.json      kind "pipeline": label names, settings
<folder>/vectorizer/        tf-idf
<folder>/encoder/           the fine-tuned transformer; absent without one
<folder>/model/             XR-Linear over [tf-idf, embedding]

An ensemble has the last two once for each member, in <folder>/members/0/, 1/ ...

<folder>/calibration/       curves from score to probability; absent without them
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from xmc_core.config import AVERAGES, EncoderConfig, EnsembleConfig
from xmc_core.data import Predictions
from xmc_core.errors import ConfigError, DataError, ShapeError, StoreError
from xmc_core.features.joined import join_features
from xmc_core.features.tfidf import TfidfVectorizer
from xmc_core.inference.calibration import Calibration, OperatingPoint
from xmc_core.inference.ensemble import average_predictions, average_scores
from xmc_core.models.xr_linear import XRLinear
from xmc_core.persistence import described, fresh_store, read_store, read_whole, write_store
from xmc_core.persistence.store import read_manifest
from xmc_core.types import Halves, Json, SparseRows

if TYPE_CHECKING:
    from xmc_core.encoder.model import TextEncoder

KIND = "pipeline"


def member_folders(folder: Path, n_members: int) -> list[Path]:
    """Where the members of an ensemble lie; a single model lies in the folder itself."""
    if n_members == 1:
        return [folder]
    return [folder / "members" / str(number) for number in range(n_members)]


@dataclass(frozen=True, eq=False)
class SavedEncoder:
    """A fine-tuned encoder's folder, opened at the first text: torch takes seconds to import."""

    folder: Path
    precision: str = "auto"
    """`encoder.precision` of the settings that it was trained with."""

    manifest: Json | None = None
    """Of the folder when the rankers were opened; None: whatever lies there."""

    @cached_property
    def opened(self) -> "TextEncoder":
        from xmc_core.encoder.device import MasterWeights, resolve_dtype
        from xmc_core.encoder.model import TextEncoder

        if self.manifest is not None and read_manifest(self.folder) != self.manifest:
            raise StoreError(
                f"{self.folder} was replaced since the model was loaded, and the rankers in memory "
                "do not belong to the encoder that lies there now; load the model again."
            )
        encoder = TextEncoder.load(self.folder)
        # Cast for good: nothing trains or saves it again.
        MasterWeights([encoder.model], resolve_dtype(self.precision, encoder.device))
        return encoder

    def embed(self, texts: Sequence[str], settings: EncoderConfig) -> Halves:
        return self.opened.embed(texts, settings)


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Rankers, and the encoder whose embeddings they were trained on, if any."""

    model: XRLinear
    encoder: SavedEncoder | None = None

    def features(self, texts: Sequence[str], X: SparseRows) -> SparseRows:
        """(n_texts, n_features) [tf-idf, embedding] of texts whose tf-idf is X."""
        if self.encoder is None:
            return X
        settings = self.model.config.encoder
        return join_features(X, self.encoder.embed(texts, settings), settings.weight)

    def save(self, folder: Path) -> None:
        self.model.save(folder / "model")
        if self.encoder is not None:
            shutil.copytree(self.encoder.folder, folder / "encoder")

    @classmethod
    def load(cls, folder: Path, *, verify: bool = False) -> "Member":
        encoder, model = folder / "encoder", XRLinear.load(folder / "model", verify=verify)
        if not encoder.is_dir():
            return cls(model)
        saved = SavedEncoder(encoder, model.config.encoder.precision, read_manifest(encoder))
        return cls(model, saved)


@dataclass(frozen=True, eq=False)
class PipelineModel:
    """Vectoriser, encoder (if any) and rankers of one training run; of an ensemble, several
    encoders and rankers, whose answers are averaged."""

    vectorizer: TfidfVectorizer
    members: tuple[Member, ...]
    """One model, or those of an ensemble."""

    label_names: list[str]
    """Of label 0 .. n_labels - 1."""

    average: str = EnsembleConfig().average
    """How the members' answers become one: `ensemble.average` of the config."""

    facts: Json | None = None
    """Data set, settings; whatever leads back to where the model came from."""

    calibration: Calibration | None = None
    """Turns scores into probabilities."""

    def __post_init__(self) -> None:
        sizes = {member.model.n_labels for member in self.members}
        if len(sizes) != 1 or max(sizes) > len(self.label_names):
            raise ShapeError(
                f"there are {len(self.label_names):,} label names, but members of "
                f"{' and '.join(map(str, sorted(sizes))) or 'no'} labels; all members must have "
                "the same labels, each with its name."
            )
        if self.calibration is not None and len(self.calibration.shifts) not in sizes:
            raise ShapeError(
                f"the calibration knows {len(self.calibration.shifts):,} labels, the model "
                f"{max(sizes):,}; both must come from the same training labels."
            )
        if self.average not in AVERAGES:
            raise ConfigError(
                f"there is no average {self.average!r}; choose from {', '.join(AVERAGES)}."
            )

    def predict(
        self,
        texts: Sequence[str],
        top_k: int | None = None,
        beam_size: int | None = None,
        allow: Sequence[str] | None = None,
        calibrated: bool | None = None,
        threshold: float | None = None,
    ) -> Predictions:
        """Rank labels for each text; names are `label_names[label]`.

        Parameters
        ----------
        allow
            The only labels to choose from; `restricted` is for names that come again.
        calibrated
            Whether scores are probabilities, most probable label first. None: if the model has been
            calibrated.
        threshold
            Labels that score less are left out. A row where none is left comes back empty: none of
            the labels fits. `operating_point` finds the threshold for a wanted precision.

        Raises
        ------
        DataError
            If `texts` is a single string or holds something that is not a string, if a name in
            `allow` is not a label's, or if `calibrated` is asked of a model that is not.
        ConfigError
            If top_k or beam_size is below 1.
        """
        model = self if allow is None else self.restricted(allow)
        answers = [
            member.model.predict(X, model._list_length(member, top_k), beam_size)
            for member, X in zip(model.members, model.features(texts), strict=True)
        ]
        found = answers[0] if len(answers) == 1 else model.averaged(answers, top_k)
        return self.finished(found, calibrated=calibrated, threshold=threshold)

    def finished(
        self,
        predictions: Predictions,
        *,
        calibrated: bool | None = None,
        threshold: float | None = None,
    ) -> Predictions:
        """What `predict` does to the rankers' own answers: probabilities, and the threshold."""
        if calibrated or (calibrated is None and self.calibration is not None):
            predictions = self._calibration.calibrated(predictions)
        return predictions if threshold is None else predictions.at_least(threshold)

    def operating_point(self, precision: float) -> OperatingPoint:
        """The threshold from which on labels are right in `precision` percent of all cases, as seen
        on held-out rows; see `Calibration.point`.

        Raises DataError if the model is not calibrated, or no score reached that precision.
        """
        return self._calibration.point(precision)

    @property
    def _calibration(self) -> Calibration:
        if self.calibration is None:
            raise DataError(
                "this model is not calibrated: its scores rank, but are no probabilities. Set "
                "calibration.method to isotonic and run the stage rankers again."
            )
        return self.calibration

    def features(self, texts: Sequence[str]) -> Iterator[SparseRows]:
        """(n_texts, n_features) rows as the rankers were trained on, [tf-idf, embedding], of each
        member in turn, so that only one member's are held in memory."""
        X = self._tfidf(texts)
        return (member.features(texts, X) for member in self.members)

    def averaged(self, answers: Sequence[Predictions], top_k: int | None = None) -> Predictions:
        """What the ensemble answers where its members answer so."""
        first = self.members[0].model
        wanted = first.config.inference.top_k if top_k is None else top_k
        return average_predictions(
            answers,
            self.average,
            top_k=min(wanted, first.most_wanted),
            n_threads=first.config.n_threads,
        )

    def score(self, texts: Sequence[str], pairs: SparseRows) -> SparseRows:
        """Scores of given (text, label) pairs, no beam cut: the stored entries of `pairs`,
        (n_texts, n_labels); see `XRLinear.score`. An ensemble takes a row's pairs for its members'
        lists: softmax and rank compare them with each other, see `average_scores`. Scores are the
        rankers' own, never probabilities: curves know what a search brings up, not any pair."""
        scores = [
            member.model.score(X, pairs)
            for member, X in zip(self.members, self.features(texts), strict=True)
        ]
        return scores[0] if len(scores) == 1 else average_scores(scores, self.average)

    def restricted(self, names: Sequence[str]) -> "PipelineModel":
        """The same pipeline, choosing among the labels of these names only."""
        if isinstance(names, str):
            raise DataError('restricted takes a list of names; for a single one pass ["..."].')
        if unknown := set(names) - self._label_numbers.keys():
            raise DataError(f"{min(unknown)!r} is not a label of this model.")
        labels = [self._label_numbers[name] for name in names]
        return replace(
            self,
            members=tuple(
                replace(member, model=member.model.restricted(labels)) for member in self.members
            ),
        )

    @cached_property
    def _label_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.label_names)}

    def _list_length(self, member: Member, top_k: int | None) -> int | None:
        """Labels that a member is asked for. In an ensemble no fewer than its settings say: else
        the best label would depend on how many are wanted beside it."""
        if len(self.members) == 1 or top_k is None or top_k < 1:  # the member refuses the last
            return top_k
        return max(top_k, member.model.config.inference.top_k)

    def _tfidf(self, texts: Sequence[str]) -> SparseRows:
        if isinstance(texts, str):
            raise DataError('predict takes a list of texts; for a single one pass ["..."].')
        if not hasattr(texts, "__len__"):
            raise DataError(
                f"predict takes a list of texts, as they are read more than once, got a "
                f"{type(texts).__name__}; pass list(...)."
            )
        return self.vectorizer.transform(texts)

    def named(self, predictions: Predictions) -> list[list[tuple[str, float]]]:
        """(label name, score) pairs of each row, best first, padding left out."""
        return [
            [
                (self.label_names[label], score)
                for label, score in zip(labels, scores, strict=True)
                if label >= 0
            ]
            for labels, scores in zip(
                predictions.labels.tolist(), predictions.scores.tolist(), strict=True
            )
        ]

    def save(self, folder: Path | str) -> None:
        """Write everything that prediction needs, so that the folder can be moved anywhere.

        What was saved there before is replaced in one step.
        """
        facts = dict(self.facts or {})
        if len(self.members) > 1:
            facts |= {"members": len(self.members), "average": self.average}
        with fresh_store(folder) as fresh:
            write_store(fresh, KIND, strings={"label_names": self.label_names}, facts=facts)
            self.vectorizer.save(fresh / "vectorizer")
            folders = member_folders(fresh, len(self.members))
            for own, member in zip(folders, self.members, strict=True):
                member.save(own)
            if self.calibration is not None:
                self.calibration.save(fresh / "calibration")

    @classmethod
    def load(cls, folder: Path | str, *, verify: bool = False) -> "PipelineModel":
        """Open a saved pipeline; arrays are memory-mapped, encoders wait for their first text.

        `verify` compares the checksums of all weights, for which they are read once.

        Raises StoreError if the folder is not a pipeline, or is incomplete, altered or damaged.
        """
        folder = Path(folder)
        return read_whole(folder, lambda: cls._load(folder, verify))

    @classmethod
    def _load(cls, folder: Path, verify: bool) -> "PipelineModel":
        store = read_store(folder, KIND, verify=verify)
        facts = dict(store.facts)
        average = facts.pop("average", EnsembleConfig().average)
        with described(folder, "a pipeline"):
            folders = member_folders(folder, int(facts.pop("members", 1)))
            names = store.strings("label_names")
        vectorizer = TfidfVectorizer.load(folder / "vectorizer", verify=verify)
        members = tuple(Member.load(own, verify=verify) for own in folders)
        curves = folder / "calibration"
        calibration = Calibration.load(curves, verify=verify) if curves.is_dir() else None
        try:
            return cls(vectorizer, members, names, average, facts, calibration)
        except (ConfigError, ShapeError) as error:
            raise StoreError(
                f"{folder} does not hold together: {error} Restore or rebuild the folder."
            ) from error
