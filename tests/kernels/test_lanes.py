import numpy as np

from xmc_core.kernels.lanes import LANES, empty_lines


def test_each_row_is_one_cache_line():
    held = []
    for n in (0, 1, 2, 3, 10, 500, 1000, 5000, 50_000):
        lines = empty_lines(n)
        held.append(lines)  # so that the next one lies elsewhere
        assert lines.shape == (n, LANES)
        assert lines.dtype == np.float32
        assert lines.flags.c_contiguous
        assert lines.ctypes.data % 64 == 0
        lines[:] = n
    assert all((lines == len(lines)).all() for lines in held)
