"""Finished models and how they are trained."""

from pathlib import Path

from xmc_core.errors import StoreError
from xmc_core.models.pipeline import Member, PipelineModel
from xmc_core.models.xr_linear import XRLinear, train_xr_linear
from xmc_core.persistence.store import read_manifest

__all__ = ["Member", "PipelineModel", "XRLinear", "load_model", "train_xr_linear"]

KINDS: dict[str, type[XRLinear] | type[PipelineModel]] = {
    "xr-linear": XRLinear,
    "pipeline": PipelineModel,
}


def load_model(folder: Path | str, *, verify: bool = False) -> XRLinear | PipelineModel:
    """Open any saved model; its manifest says which kind it is.

    `verify` compares the checksums of all weights, for which they are read once.

    Raises StoreError if the folder is not a model, or is incomplete, altered or damaged.
    """
    kind = read_manifest(folder)["kind"]
    if kind not in KINDS:
        raise StoreError(f"{folder} holds a {kind}, not a model; models are: {', '.join(KINDS)}.")
    return KINDS[kind].load(Path(folder), verify=verify)
