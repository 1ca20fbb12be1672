"""The label tree: what it is, how it grows, how labels come to live in several clusters."""

from xmc_core.tree.build import build_label_tree
from xmc_core.tree.disentangle import disentangle_tree
from xmc_core.tree.label_tree import LabelTree

__all__ = ["LabelTree", "build_label_tree", "disentangle_tree"]
