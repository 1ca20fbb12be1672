"""Names for the array types that appear in signatures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Halves = NDArray[np.float16]
Indices = NDArray[np.int32]
"""Row, column and label numbers. 3 million labels and 2^31 features fit."""

Pointers = NDArray[np.int64]
"""Offsets into something with one entry per non-zero, which may pass 2^31."""

Bytes = NDArray[np.uint8]
SignedBytes = NDArray[np.int8]
SignedShorts = NDArray[np.int16]
Flags = NDArray[np.bool_]

SparseRows = csr_array
"""CSR: float32 values, sorted column numbers."""

Json = dict[str, Any]
