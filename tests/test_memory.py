import sys
from pathlib import Path

import numpy as np
import pytest

from xmc_core.memory import return_freed_memory

STATUS = Path("/proc/self/status")


def resident_mb():
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_blocks_that_were_freed_between_others_go_back():
    blocks = [np.ones(2**11) for _ in range(4096)]  # 16 KiB each, 64 MiB in all
    held = blocks[::8]  # so that no end of the heap is free
    full = resident_mb()
    del blocks
    return_freed_memory()
    assert resident_mb() < full - 40
    assert all(block[0] == 1 for block in held)
