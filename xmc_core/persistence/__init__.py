"""How results lie on disk: a folder of arrays with a manifest, written aside and renamed."""

from xmc_core.persistence.store import (
    Store,
    described,
    fresh_store,
    read_store,
    read_whole,
    write_store,
)

__all__ = ["Store", "described", "fresh_store", "read_store", "read_whole", "write_store"]
