"""From features and a trained tree of rankers to ranked labels."""

from xmc_core.inference.predictions import Predictions

__all__ = ["Predictions"]
