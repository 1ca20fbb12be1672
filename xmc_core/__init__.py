"""Extreme multi-label classification: texts in, ranked labels out of thousands to millions.

The names below load on first use, so that `import xmc_core` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xmc_core.config import Config, load_config
    from xmc_core.data import Dataset, Predictions
    from xmc_core.metrics import evaluate
    from xmc_core.models import PipelineModel, XRLinear, load_model, train_xr_linear
    from xmc_core.tree import LabelTree

__version__ = "0.1.0"

_HOME = {
    "Config": "xmc_core.config",
    "load_config": "xmc_core.config",
    "Dataset": "xmc_core.data",
    "Predictions": "xmc_core.data",
    "evaluate": "xmc_core.metrics",
    "PipelineModel": "xmc_core.models",
    "XRLinear": "xmc_core.models",
    "load_model": "xmc_core.models",
    "train_xr_linear": "xmc_core.models",
    "LabelTree": "xmc_core.tree",
}

__all__ = [
    "Config",
    "Dataset",
    "LabelTree",
    "PipelineModel",
    "Predictions",
    "XRLinear",
    "evaluate",
    "load_config",
    "load_model",
    "train_xr_linear",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'xmc_core' has no attribute {name!r}")
