"""How results lie on disk: a folder of arrays with a manifest, written aside and renamed."""

from xmc_core.persistence.store import Store, fresh_store, read_store, write_store

__all__ = ["Store", "fresh_store", "read_store", "write_store"]
