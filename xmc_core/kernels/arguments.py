"""Arrays as kernels take them."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def read_only(array: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """A contiguous view that cannot be written, copied only where dtype or layout differ.

    numba compiles a kernel anew for arrays that cannot be written, as those of a memory-mapped
    file are. Inputs that are always marked so need one compilation, wherever they come from.
    """
    same: NDArray[Any] = np.ascontiguousarray(array, dtype)
    view = same.view() if same is array else same
    view.setflags(write=False)  # a third of the time of view.flags.writeable
    return view
