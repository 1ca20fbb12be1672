"""What `xmc tree show` says of one label, and the list of the most ambiguous ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from xmc_core.errors import DataError
from xmc_core.metrics.ambiguity import DEFINITION
from xmc_core.metrics.report import shorten
from xmc_core.stages.ambiguity import ambiguous_labels
from xmc_core.tree.ambiguity import ClusterCase, LabelCase, label_case, strongest_documents

if TYPE_CHECKING:
    from xmc_core.persistence import Store
    from xmc_core.stages.inputs import Inputs
    from xmc_core.tree import LabelTree
    from xmc_core.tree.describe import TreeGuide
    from xmc_core.types import SparseRows

NAMED = 5
"""Labels that an error lists where a name fits several."""

NARROWEST = 40
"""Characters of a text, however narrow the terminal."""


@dataclass(frozen=True)
class Shown:
    """The tree of a stage and what tells about it."""

    inputs: "Inputs"
    guide: "TreeGuide"
    data: "Store"
    stage: str

    @cached_property
    def Y(self) -> "SparseRows":
        return self.data.csr("Y_train")

    @cached_property
    def beams(self) -> "SparseRows | None":
        """Those of this tree; None where the rankers' was grown anew, on other leaves."""
        stage = self.stage
        if stage == "disentangled_tree" or (
            stage == "rankers" and _same(self.guide.tree, self.inputs.disentangled_tree)
        ):
            return self.inputs.settled_beams
        if stage == "initial_tree" or _same(self.guide.tree, self.inputs.initial_tree):
            return self.inputs.beams
        return None

    @cached_property
    def texts(self) -> list[str]:
        return self.data.strings("train_texts")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to show of each cluster."""

    words: int
    siblings: int
    documents: int


def find_label(names: Sequence[str], wanted: str, n_labels: int) -> int:
    """The label with this name, or else, in any case of its letters, with this name or a part of it
    that no other label's name has, or with this number ("#12"). Only the first `n_labels` count:
    training never showed the others.

    >>> names = ["Apple", "apple pie", "Cider", "new"]
    >>> [find_label(names, wanted, 3) for wanted in ("Cider", "apple", "pie", "#0")]
    [2, 0, 1, 0]
    """
    known, folded = names[:n_labels], wanted.casefold()
    lower = [name.casefold() for name in known]
    for hits in (
        [label for label, name in enumerate(known) if name == wanted],
        _number(wanted, n_labels),
        [label for label, name in enumerate(lower) if name == folded],
        [label for label, name in enumerate(lower) if folded in name],
    ):
        if len(hits) == 1:
            return hits[0]
        if hits:
            some = "; ".join(f"{known[label]} (#{label})" for label in hits[:NAMED])
            more = f"; and {len(hits) - NAMED:,} more" if len(hits) > NAMED else ""
            raise DataError(
                f"{wanted!r} fits {len(hits):,} labels: {some}{more}. Give the full "
                "name of one, or its number as #12."
            )
    if folded in {name.casefold() for name in names[n_labels:]}:
        raise DataError(f"{wanted!r} occurs in the test split only: no tree has it.")
    raise DataError(f"no label has {wanted!r} in its name; try a part of a word.")


def _number(wanted: str, n_labels: int) -> list[int]:
    digits = wanted.removeprefix("#")
    if digits == wanted or not digits.isdecimal():
        return []
    if int(digits) >= n_labels:
        raise DataError(f"there is no label {wanted}; the labels are #0 .. #{n_labels - 1}.")
    return [int(digits)]


def show_label(console: Console, shown: Shown, label: int, sizes: Sizes) -> None:
    """The clusters of a label, each with its words, neighbours and documents."""
    tree, beams = shown.guide.tree, shown.beams
    name = shown.guide.label_names[label]
    if beams is None:
        case = LabelCase(label, 0, 0, tuple(_clusters_alone(tree, label)))
        documents = int(np.count_nonzero(shown.Y.indices == label))
    else:
        case = label_case(tree, shown.Y, beams, label)
        documents = case.documents
    home = "one cluster only" if len(case.clusters) == 1 else f"{len(case.clusters)} clusters"
    console.print(
        Text.assemble(
            (name, "bold"), f" (#{label}): {_documents(documents)}, {home} of {shown.stage}"
        ),
        soft_wrap=True,
    )
    for cluster in case.clusters:
        console.print()
        _show_place(console, shown, label, cluster.leaf, sizes)
        if beams is not None:
            _show_case(console, shown, beams, case, cluster, sizes.documents)
    console.print()
    console.print(_conclusion(case, known=beams is not None))
    if beams is not None and shown.stage != "initial_tree":
        before = label_case(shown.inputs.initial_tree, shown.Y, shown.inputs.beams, label).clusters[
            0
        ]
        if before.leaf not in {cluster.leaf for cluster in case.clusters}:
            console.print(
                f"In the initial tree it lived in leaf {before.leaf}, which {before.reached:,} of "
                f"{_documents(documents)} reach."
            )


def _clusters_alone(tree: "LabelTree", label: int) -> list[ClusterCase]:
    leaves = tree.leaf_of_slots()[tree.slot_labels == label]
    return [ClusterCase(leaf, 0, 0) for leaf in leaves.tolist()]


def _show_place(console: Console, shown: Shown, label: int, leaf: int, sizes: Sizes) -> None:
    """Where a cluster is, what it is about, who else lives there."""
    guide = shown.guide
    for level, node in list(enumerate(guide.tree.path(leaf)))[1:-1]:
        told = guide.node(level, node, n_words=sizes.words, n_labels=0)
        line = f"{'  ' * (level - 1)}level {level}, node {node}: {_words(told.words)}"
        console.print(Text(line, "dim"), soft_wrap=True)
    told = guide.leaf(leaf, n_words=sizes.words, n_labels=sizes.siblings + 1)
    home = "" if shown.stage == "initial_tree" or not _first_home(shown, label, leaf) else (
        " (its cluster in the initial tree)"
    )  # fmt: skip
    title = (f"leaf {leaf}: {_words(told.words)}", "bold")
    console.print(Text.assemble(title, (home, "dim")), soft_wrap=True)
    names = [name for name in told.labels if name != guide.label_names[label]][: sizes.siblings]
    left = told.n_labels - 1 - len(names)
    more = [f"{left:,} more" if names else f"{left:,} labels"] if left else []
    others = f"with {'; '.join([*names, *more]) or 'no other label'}"
    console.print(Padding(others, (0, 0, 0, 2)))


def _first_home(shown: Shown, label: int, leaf: int) -> bool:
    return shown.beams is not None and label in shown.inputs.initial_tree.leaf_labels(leaf)


def _show_case(
    console: Console,
    shown: Shown,
    beams: "SparseRows",
    case: LabelCase,
    cluster: ClusterCase,
    most: int,
) -> None:
    """How many documents speak for a cluster, and the strongest of them."""
    line = f"  held-out beams of {cluster.reached:,} of {_documents(case.documents)} reach it"
    if len(case.clusters) > 1:
        line += f", {cluster.alone:,} of them no other cluster of the label"
    console.print(line, soft_wrap=True)
    several = len(case.clusters) > 1
    width = max(NARROWEST, console.width - (22 if several else 10))
    for reach in strongest_documents(
        shown.guide.tree, shown.Y, beams, case.label, cluster.leaf, most
    ):
        kind = ("  only here  " if reach.alone else "  also there ") if several else "  "
        text = shorten(shown.texts[reach.document], width - 2) or "(no text)"
        console.print(Text.assemble((f"  {reach.score:.3f}{kind}", "dim"), text), soft_wrap=True)


def _conclusion(case: LabelCase, *, known: bool) -> str:
    if not known:
        return (
            "This tree was grown anew, on other leaves: no beams of held-out rows are kept of it. "
            "--stage disentangled_tree has those of its tree."
        )
    n = case.documents
    if not n:
        return "No training document has this label."
    missed = f"{case.missed:,} of {_documents(n)} ({case.missed / n:.1%}) reach no cluster of it."
    if len(case.clusters) == 1:
        return f"It lives in one cluster only; {missed}"
    return (
        f"{missed}\nAmbiguity {case.ambiguity:.1%}: {case.only_with_several:,} would be missed, "
        "too, if it lived in the first of these clusters alone."
    )


def list_ambiguous(console: Console, shown: Shown, *, most: int, words: int) -> None:
    """The labels that live in several clusters, the most ambiguous first."""
    if shown.beams is None:
        raise DataError(
            "the rankers' tree was grown anew, on other leaves: no beams of held-out rows are kept "
            "of it; take --stage disentangled_tree, or name a label."
        )
    found = ambiguous_labels(shown.guide, shown.Y, shown.beams, most, words)
    if not found.labels:
        console.print(f"All {found.n_labels:,} labels of {shown.stage} live in one cluster each.")
        return
    for label in found.labels:
        documents = f"{_documents(label.documents)}, {label.missed:,} missed"
        console.print(
            Text.assemble(f"{label.ambiguity:5.1f} %  ", (label.name, "bold"), f"  {documents}"),
            soft_wrap=True,
        )
        for own in label.clusters:
            counts = f"{own.reached:7,} reach, {own.alone:,} only"
            console.print(
                Text.assemble((f"{counts:<24}", "dim"), f"  leaf {own.leaf}: {_words(own.words)}"),
                soft_wrap=True,
            )
    console.print(
        f"{found.n_several:,} of {found.n_labels:,} labels live in several clusters of "
        f"{shown.stage}. Ambiguity: {DEFINITION}."
    )


def _same(tree: "LabelTree", other: "LabelTree") -> bool:
    return (
        tree.level_sizes == other.level_sizes
        and np.array_equal(tree.slot_labels, other.slot_labels)
        and all(map(np.array_equal, tree.pointers, other.pointers))
    )


def _words(words: Sequence[str]) -> str:
    return ", ".join(words) or "no words"


def _documents(n: int) -> str:
    return f"{n:,} training document{'' if n == 1 else 's'}"
