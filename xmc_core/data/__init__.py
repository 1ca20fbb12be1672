"""Where texts and labels come from."""

from xmc_core.data.dataset import Dataset

__all__ = ["Dataset"]
