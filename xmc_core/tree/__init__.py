"""The label tree: what it is, how it grows, how labels come to live in several clusters."""

from xmc_core.tree.label_tree import LabelTree

__all__ = ["LabelTree"]
