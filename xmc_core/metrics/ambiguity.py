"""Labels with several meanings, as the report tells of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from xmc_core.metrics.render import Block, Cell, Heading, Table, Text

SHOWN = 10
"""Labels in the report; the file beside it has more."""

DEFINITION = (
    "percent of a label's training documents that are found only because it has several clusters, "
    "and would be missed if it kept the one that most of them reach. With two clusters 50 is an "
    "even split. Beams are those of rankers that had not seen the document"
)


@dataclass(frozen=True, slots=True)
class ToldCluster:
    """A cluster in words."""

    leaf: int
    words: tuple[str, ...]
    reached: int
    """Documents of the label whose held-out beam reaches it."""

    alone: int
    """Those that reach no other cluster of the label."""


@dataclass(frozen=True, slots=True)
class AmbiguousLabel:
    """A label that lives in several clusters."""

    name: str
    documents: int
    missed: int
    """Documents whose held-out beam reaches no cluster of the label."""

    ambiguity: float
    """Percent; see DEFINITION."""

    clusters: tuple[ToldCluster, ...]
    """The one that most documents reach first."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The most ambiguous labels of a tree."""

    labels: Sequence[AmbiguousLabel]
    """By falling ambiguity."""

    n_several: int
    """Labels that live in several clusters."""

    n_labels: int


def ambiguous_blocks(ambiguous: Ambiguous | None) -> list[Block]:
    """A section of the report; none where every label has one cluster."""
    if ambiguous is None or not ambiguous.labels:
        return []
    rows = tuple(
        (
            Cell(label.name, "\n".join(_told(cluster) for cluster in label.clusters)),
            Cell(f"{label.documents:,}"),
            Cell(f"{label.missed:,}"),
            Cell(f"{label.ambiguity:.1f}"),
        )
        for label in ambiguous.labels[:SHOWN]
    )
    return [
        Heading("Labels with several meanings"),
        Text(
            f"{ambiguous.n_several:,} of {ambiguous.n_labels:,} labels live in several clusters of "
            f"the disentangled tree. The {len(rows)} most ambiguous, each with the telling words "
            "of its clusters, the training documents whose beam reaches a cluster, and those of "
            "them whose beam reaches no other cluster of the label. Missed: documents whose beam "
            f"reaches none. Ambiguity: {DEFINITION}."
        ),
        Table(("Label, its clusters", "Documents", "Missed", "Ambiguity, %"), rows),
    ]


def _told(cluster: ToldCluster) -> str:
    words = " · ".join(cluster.words) or "no words"
    return f"{words} ({cluster.reached:,} documents, {cluster.alone:,} only here)"
