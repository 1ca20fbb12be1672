"""xmc tree view, show: what the clusters of a data set's labels are about."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from xmc_core.cli.options import DATA, PresetOption, require_known
from xmc_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from xmc_core.persistence import Store
    from xmc_core.stages.inputs import Inputs
    from xmc_core.tree import LabelTree
    from xmc_core.tree.describe import TreeGuide
    from xmc_core.types import Pointers

SHOWN_NODES = 40
"""Without --depth, the tree is shown down to the last level with at most so many nodes."""

SHOWN_HITS = 20

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The label tree: its clusters, and why a label lives in which.",
)

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="A data set of params.yaml.")
]


class Grown(StrEnum):
    """The stages that leave a tree."""

    initial_tree = "initial_tree"
    disentangled_tree = "disentangled_tree"
    rankers = "rankers"


@app.command()
def view(
    dataset: DatasetArgument,
    leaf: Annotated[
        int | None, typer.Option("--leaf", min=0, help="All labels of this leaf.")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="TEXT", help="Leaves of labels with TEXT in their name."),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth", min=1, help="Levels to show.", show_default="what fits a screen or two"
        ),
    ] = None,
    words: Annotated[int, typer.Option("--words", min=1, help="Words per cluster.")] = 6,
    labels: Annotated[int, typer.Option("--labels", min=0, help="Labels per cluster.")] = 4,
    stage: Annotated[
        Grown,
        typer.Option(
            "--stage",
            help="Which tree: as it was grown, or as it is used (an ensemble's first one).",
        ),
    ] = Grown.initial_tree,
    preset: PresetOption = None,
) -> None:
    """Draw the label tree: the most telling words and the most typical labels of each cluster.

    Example: `xmc tree view python-api --search sparse`, then `xmc tree view python-api --leaf 12`
    """
    import numpy as np
    from rich.console import Console

    from xmc_core.stages.inputs import Inputs
    from xmc_core.stages.paths import ProjectPaths

    if leaf is not None and search is not None:
        raise ConfigError("give --leaf or --search, not both.")
    require_known(dataset)
    guide, data = open_guide(Inputs(ProjectPaths(DATA, dataset, preset)), stage)
    counts = np.bincount(data.csr("Y_train").indices, minlength=guide.tree.n_labels)
    console = Console(markup=False, highlight=False)
    if leaf is not None:
        _show_leaf(console, guide, counts, leaf, words)
    elif search is not None:
        _show_hits(console, guide, search, words)
    else:
        console.print(f"{dataset}, {stage.value}: {size(guide.tree)}")
        _show_levels(console, guide.tree)
        console.print(_branches(guide, _shown_depth(guide.tree, depth), words, labels))


@app.command()
def show(
    dataset: DatasetArgument,
    label: Annotated[
        str | None,
        typer.Argument(
            metavar="LABEL",
            help="Its name, a part that no other name has, or its number as #12; "
            "without it, the most ambiguous labels are listed.",
            show_default=False,
        ),
    ] = None,
    words: Annotated[int, typer.Option("--words", min=1, help="Words per cluster.")] = 6,
    siblings: Annotated[
        int, typer.Option("--siblings", min=0, help="Other labels shown of each cluster.")
    ] = 6,
    documents: Annotated[
        int, typer.Option("--documents", min=0, help="Documents shown of each cluster.")
    ] = 3,
    most: Annotated[
        int, typer.Option("--most", min=1, help="Labels listed at most, without LABEL.")
    ] = 20,
    stage: Annotated[
        Grown | None,
        typer.Option(
            "--stage",
            help="Which tree: as it was grown, or as it is used (an ensemble's first one).",
            show_default="disentangled_tree, where it is there",
        ),
    ] = None,
    preset: PresetOption = None,
) -> None:
    """Show the clusters of a label, and the training documents that made the case for each.

    Counted are beams of rows held out: where a matcher that has not seen a document looks for its
    labels (after several rounds of disentangling, one trained on their last tree).

    Example: `xmc tree show python-api`, then `xmc tree show python-api numpy.sort`
    """
    from rich.console import Console

    from xmc_core.cli import tree_label
    from xmc_core.stages.inputs import Inputs
    from xmc_core.stages.paths import ProjectPaths

    require_known(dataset)
    paths = ProjectPaths(DATA, dataset, preset)
    if stage is None:
        there = (paths.out(Grown.disentangled_tree) / "manifest.json").exists()
        stage = Grown.disentangled_tree if there else Grown.initial_tree
    inputs = Inputs(paths)
    guide, data = open_guide(inputs, stage)
    shown = tree_label.Shown(inputs, guide, data, stage.value)
    console = Console(markup=False, highlight=False)
    if label is None:
        tree_label.list_ambiguous(console, shown, most=most, words=words)
    else:
        number = tree_label.find_label(guide.label_names, label, guide.tree.n_labels)
        sizes = tree_label.Sizes(words, siblings, documents)
        tree_label.show_label(console, shown, number, sizes)


def open_guide(inputs: "Inputs", stage: Grown) -> "tuple[TreeGuide, Store]":
    """The tree of a stage with its words and names, and the data set without its texts."""
    from xmc_core.models import PipelineModel
    from xmc_core.persistence import read_store
    from xmc_core.tree import LabelTree
    from xmc_core.tree.describe import TreeGuide

    folder = inputs.paths.existing(stage.value)
    grown = (
        PipelineModel.load(folder / "bundle").members[0].model.tree
        if stage is Grown.rankers
        else LabelTree.load(folder / "tree")
    )
    data = read_store(inputs.paths.existing("dataset"), "dataset")
    names = data.strings("label_names")
    return TreeGuide(grown, inputs.label_features, inputs.vectorizer.terms(), names), data


def size(tree: "LabelTree") -> str:
    """One line: how many labels in how many leaves."""
    import numpy as np

    sizes = np.diff(tree.pointers[-1])
    several = int((np.bincount(tree.slot_labels, minlength=tree.n_labels) > 1).sum())
    text = (
        f"{tree.n_labels:,} labels in {tree.n_leaves:,} leaves of {sizes.min():,} to "
        f"{sizes.max():,}, half of them up to {int(np.median(sizes)):,}"
    )
    return text + (f"; {several:,} labels live in several" if several else "")


def _show_levels(console: "Console", tree: "LabelTree") -> None:
    import numpy as np
    from rich.table import Table

    table = Table("level")
    for name in ("nodes", "fewest children", "most children"):
        table.add_column(name, justify="right")
    for level, pointer in enumerate(tree.pointers):
        children = np.diff(pointer)
        name = (
            "root" if level == 0 else f"{level}, leaves" if level == tree.depth - 1 else str(level)
        )
        table.add_row(name, f"{len(children):,}", f"{children.min():,}", f"{children.max():,}")
    table.add_row(f"{tree.depth}, labels", f"{tree.n_slots:,}", "", "")
    console.print(table)


def _shown_depth(tree: "LabelTree", depth: int | None) -> int:
    deepest = tree.depth - 1
    if depth is None:
        few = [t for t in range(1, deepest + 1) if tree.level_sizes[t - 1] <= SHOWN_NODES]
        return max(few, default=min(1, deepest))
    if depth > deepest:
        raise ConfigError(
            f"--depth {depth}: the leaves are at level {deepest}; --leaf N shows a leaf's labels."
        )
    return depth


def _branches(guide: "TreeGuide", depth: int, words: int, labels: int) -> "Tree":
    """The tree down to a level, as rich draws it."""
    from rich.text import Text
    from rich.tree import Tree

    def title(level: int, node: int) -> Text:
        told = guide.node(level, node, n_words=words, n_labels=labels)
        name = "leaf" if level == guide.tree.depth - 1 else "node"
        text = Text.assemble(
            (f"{name} {node}", "dim"), "  ", (", ".join(told.words) or "no words", "bold")
        )
        text.append(f"  {told.n_labels:,} labels", "dim")
        return text.append(f"\n{'; '.join(told.labels)}") if labels and told.labels else text

    def grow(branch: Tree, level: int, node: int) -> None:
        if level < depth:
            for child in range(*guide.tree.pointers[level][node : node + 2]):
                grow(branch.add(title(level + 1, child)), level + 1, child)

    root = Tree(title(0, 0) if depth == 0 else Text("all labels"))
    grow(root, 0, 0)
    return root


def _show_leaf(
    console: "Console", guide: "TreeGuide", counts: "Pointers", leaf: int, words: int
) -> None:
    from rich.table import Table

    tree = guide.tree
    if leaf >= tree.n_leaves:
        raise ConfigError(f"there is no leaf {leaf}; the leaves are 0 .. {tree.n_leaves - 1}.")
    for level, node in list(enumerate(tree.path(leaf)))[1:]:
        told = guide.node(level, node, n_words=words)
        name = f"leaf {leaf}" if level == tree.depth - 1 else f"level {level}, node {node}"
        console.print(f"{'  ' * (level - 1)}{name}: {', '.join(told.words) or 'no words'}")
    table = Table("label, the most typical first")
    table.add_column("training documents", justify="right")
    for label in guide.typical_labels(tree.depth - 1, leaf)[0]:
        table.add_row(guide.label_names[label], f"{counts[label]:,}")
    console.print(table)


def _show_hits(console: "Console", guide: "TreeGuide", search: str, words: int) -> None:
    import numpy as np
    from rich.table import Table

    tree, wanted = guide.tree, search.casefold()
    hits = [
        label for label in range(tree.n_labels) if wanted in guide.label_names[label].casefold()
    ]
    if not hits:
        raise DataError(f"no label has {search!r} in its name; try a part of a word.")
    slots = np.flatnonzero(np.isin(tree.slot_labels, hits))
    leaves = tree.leaf_of_slots()[slots]
    table = Table("leaf", "words", f"labels with {search!r}")
    found = np.unique(leaves)
    for leaf in found[np.argsort(-np.bincount(leaves)[found], kind="stable")][:SHOWN_HITS]:
        names = [guide.label_names[label] for label in tree.slot_labels[slots[leaves == leaf]]]
        told = guide.leaf(int(leaf), n_words=words)
        table.add_row(str(leaf), ", ".join(told.words), "; ".join(names))
    console.print(table)
    more = f", the {SHOWN_HITS} with most of them shown" if len(found) > SHOWN_HITS else ""
    console.print(f"{len(hits):,} labels in {len(found):,} leaves{more}")
