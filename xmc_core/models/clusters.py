"""The clusters that each label is to live in, found in rounds."""

from dataclasses import dataclass

from xmc_core.config import Config
from xmc_core.inference.reach import recall_of_beam
from xmc_core.models.levels import held_out_beams
from xmc_core.reporting import SILENT, Reporter
from xmc_core.tree import LabelTree
from xmc_core.tree.disentangle import disentangle_tree
from xmc_core.types import SparseRows


@dataclass(frozen=True, slots=True, eq=False)
class FoundClusters:
    """A tree in which a label may sit in several leaves."""

    tree: LabelTree
    beams: SparseRows
    """(n_samples, n_leaves) the beams of rows held out that say most about this tree."""

    recalls: tuple[float, ...]
    """Before, and after each round that was looked at: share of the true labels that lie in the
    held-out beam of their row."""


def find_clusters(
    X: SparseRows,
    Y: SparseRows,
    tree: LabelTree,
    config: Config,
    *,
    beams: SparseRows | None = None,
    report: Reporter = SILENT,
) -> FoundClusters:
    """Reassign labels to the leaves of `tree` where beams of rows held out look for them.

    A round trains the levels above the labels, on the tree of the round before and without the rows
    of one part at a time; the labels' own level, the largest, is trained once all is settled. Where
    the beams reach every label already, nothing is moved. With several rounds, each is judged by
    what the next one's beams can reach, and the first that does not raise it is taken back.

    Parameters
    ----------
    X : (n_samples, n_features)
    Y : (n_samples, n_labels)
    tree
        A partition, or an earlier result.
    beams : (n_samples, n_leaves)
        Those of `held_out_beams` for this tree, where they are known already.
    """
    settings = config.disentangle
    if beams is None:
        beams = held_out_beams(X, Y, tree, config, report=report)
    recalls = [recall_of_beam(tree, Y, beams)]
    for number in range(1, settings.rounds + 1):
        if recalls[-1] == 1.0:  # such as with fewer leaves than the beam holds
            break
        candidate = disentangle_tree(tree, Y, beams, settings, config.n_threads)
        if settings.rounds == 1:
            tree = candidate
            break
        found = held_out_beams(X, Y, candidate, config, report=report)
        recalls.append(recall_of_beam(candidate, Y, found))
        report.message(
            f"round {number}: beams of rows held out reach {recalls[-1]:.2%} of the true labels, "
            f"{recalls[-2]:.2%} before"
        )
        if recalls[-1] <= recalls[-2]:
            break
        tree, beams = candidate, found
    return FoundClusters(tree, beams, tuple(recalls))
