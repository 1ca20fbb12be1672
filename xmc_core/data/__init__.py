"""Texts, labels and predictions: what goes in and what comes out."""

from xmc_core.data.dataset import Dataset
from xmc_core.data.predictions import Predictions

__all__ = ["Dataset", "Predictions"]
