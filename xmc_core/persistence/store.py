"""A folder of arrays with a manifest.

    manifest.json      format, kind, version, facts, and for each array file: dtype, shape, crc32
    <name>.npy         one array a file, opened by memory map: loading costs the same for any size

Nothing is pickled, and no clock, host or user name is written: equal content, equal bytes.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from xmc_core.errors import ConfigError, DataError, ShapeError, StoreError
from xmc_core.persistence.atomic import fresh_folder, write_text
from xmc_core.types import Json, SparseRows

FORMAT = "xmc-store"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CHECKED_BYTES = 256 * 2**20
"""Checksums are compared at loading, the smallest arrays first, up to so many bytes in all: a
quarter of a second. Those of the others only with `verify`."""

TRIES = 5
"""A folder that is replaced so often while it is read is given up."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Store:
    """What a folder holds: `arrays` by name, and `facts`, plain JSON."""

    folder: Path
    facts: Json
    arrays: dict[str, NDArray[Any]]

    def csr(self, name: str) -> SparseRows:
        """The sparse matrix that was written under `name`."""
        pointer = self.arrays[f"{name}.indptr"]
        if pointer[-1] <= np.iinfo(np.int32).max:
            pointer = pointer.astype(np.int32)
        matrix = csr_array(tuple(self.facts["csr"][name]), dtype=self.arrays[f"{name}.data"].dtype)
        # Set one by one: from pointers of 64 bits csr_array() would copy the mapped column numbers
        # into 64 bits too.
        matrix.data = self.arrays[f"{name}.data"]
        matrix.indices = self.arrays[f"{name}.indices"]
        matrix.indptr = pointer
        matrix.has_sorted_indices = True
        return matrix

    def strings(self, name: str) -> list[str]:
        """The list of strings that was written under `name`."""
        text = self.arrays[f"{name}.utf8"].tobytes()
        ends = self.arrays[f"{name}.ends"]
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        return [
            text[a:b].decode("utf-8") for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        ]


@contextmanager
def fresh_store(folder: Path | str) -> Iterator[Path]:
    """A new folder to save something into, which then takes the place of `folder` in one step.

    What is saved may have been opened from there: its arrays stay readable.

    Raises StoreError if `folder` holds what was not saved by xmc, which would be lost.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file, and what is saved is a folder; choose another name.")
    if folder.is_dir() and any(folder.iterdir()) and not _is_manifest(folder / MANIFEST):
        raise StoreError(
            f"{folder} holds files that xmc did not write, and saving would replace the whole "
            "folder; choose another one, or empty it."
        )
    with fresh_folder(folder) as fresh:
        yield fresh


def write_store(
    folder: Path,
    kind: str,
    *,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    matrices: Mapping[str, SparseRows] | None = None,
    strings: Mapping[str, Sequence[str]] | None = None,
    facts: Json | None = None,
) -> None:
    """Write arrays, sparse matrices and lists of strings into `folder`, the manifest last.

    `kind` names what it is ("label-tree"); `read_store` refuses a folder of another kind.
    """
    everything = dict(arrays or {})
    for name, matrix in (matrices or {}).items():
        matrix = matrix if matrix.has_sorted_indices else matrix.sorted_indices()
        everything[f"{name}.data"] = matrix.data
        everything[f"{name}.indices"] = matrix.indices.astype(np.int32, copy=False)
        everything[f"{name}.indptr"] = matrix.indptr.astype(np.int64, copy=False)
    for name, values in (strings or {}).items():
        encoded = [value.encode("utf-8") for value in values]
        everything[f"{name}.utf8"] = np.frombuffer(b"".join(encoded), np.uint8)
        everything[f"{name}.ends"] = np.cumsum([len(e) for e in encoded], dtype=np.int64)

    folder.mkdir(parents=True, exist_ok=True)
    listing = {}
    for name, array in sorted(everything.items()):
        array = np.ascontiguousarray(array)
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        listing[name] = {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "crc32": _crc32(array),
        }
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "kind": kind,
        "facts": {
            **(facts or {}),
            "csr": {name: list(m.shape) for name, m in (matrices or {}).items()},
        },
        "arrays": listing,
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read_store(folder: Path | str, kind: str, *, verify: bool = False) -> Store:
    """Open a folder written by `write_store`; arrays are read-only memory maps.

    Raises
    ------
    StoreError
        If the folder is missing, of another kind or version, or a file is missing, truncated or
        altered. The message names the file. `verify` compares the checksums of large arrays too.
    """
    folder = Path(folder)
    return read_whole(folder, lambda: _read(folder, kind, verify))


def read_whole(folder: Path, read: Callable[[], Result]) -> Result:
    """What `read` makes of the files in `folder`: all from before a writer put something else in
    its place, or all from after. The tree of one model fits the weights of another that was trained
    on the same labels, and together they answer nonsense.

    Raises StoreError as `read` does, and if the folder is replaced all the time.
    """
    for _ in range(TRIES):
        before = _identity(folder)
        try:
            result = read()
        except StoreError:
            if before == _identity(folder):
                raise
        else:
            if before == _identity(folder):
                return result
    raise StoreError(f"{folder} was replaced {TRIES} times while it was read; try again later.")


@contextmanager
def described(folder: Path, what: str) -> Iterator[None]:
    """Raises StoreError where the manifest of a folder turns out not to describe `what`."""
    try:
        yield
    except (
        AttributeError, KeyError, TypeError, ValueError, ConfigError, DataError, ShapeError,
    ) as error:  # fmt: skip
        raise StoreError(
            f"{folder / MANIFEST} does not describe {what} ({error}); restore or rebuild the "
            "folder."
        ) from error


def _identity(folder: Path) -> tuple[int, int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns  # numbers of folders are used again


def _read(folder: Path, kind: str, verify: bool) -> Store:
    manifest = read_manifest(folder)
    if manifest["kind"] != kind:
        raise StoreError(f"{folder} holds a {manifest['kind']}, not a {kind}.")

    arrays: dict[str, NDArray[Any]] = {}
    unchecked: list[tuple[int, str, int]] = []
    for name, expected in manifest["arrays"].items():
        file = folder / f"{name}.npy"
        try:
            empty = 0 in expected["shape"]  # an empty file cannot be mapped
            array = np.load(file, mmap_mode=None if empty else "r", allow_pickle=False)
        except FileNotFoundError:
            raise StoreError(
                f"{file} is missing; the folder is incomplete, restore or rebuild it."
            ) from None
        except (ValueError, OSError, EOFError) as error:
            raise StoreError(
                f"{file} is damaged ({error}); restore or rebuild the folder."
            ) from error
        found = {"dtype": str(array.dtype), "shape": list(array.shape)}
        wanted = {"dtype": expected["dtype"], "shape": expected["shape"]}
        if found != wanted:
            raise StoreError(f"{file} holds {found}, the manifest says {wanted}; it was altered.")
        arrays[name] = array if empty else np.asarray(array)
        unchecked.append((array.nbytes, name, expected["crc32"]))
    read = 0
    for size, name, checksum in sorted(unchecked):
        read += size
        if not verify and read > CHECKED_BYTES:
            break
        if _crc32(arrays[name]) != checksum:
            raise StoreError(
                f"{folder / f'{name}.npy'} does not match its checksum; it was altered or damaged."
            )
    return Store(folder, manifest["facts"], arrays)


def read_manifest(folder: Path | str) -> Json:
    """The manifest of a store: kind, facts, arrays."""
    file = Path(folder) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder} is not a saved xmc folder: it has no manifest.json.") from None
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}.") from error
    except ValueError as error:
        raise StoreError(
            f"{file} cannot be read ({error}); restore or rebuild the folder."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{file} is not an xmc manifest.")
    if manifest.get("version") != FORMAT_VERSION:
        raise StoreError(
            f"{folder} has format version {manifest.get('version')}; "
            f"this release reads {FORMAT_VERSION}."
        )
    if missing := {"kind", "facts", "arrays"} - manifest.keys():
        raise StoreError(
            f"{file} lacks {', '.join(sorted(missing))}; restore or rebuild the folder."
        )
    if not _describes_arrays(manifest["arrays"]) or not isinstance(manifest["facts"], dict):
        raise StoreError(
            f"{file} does not describe a store; it was altered. Restore or rebuild the folder."
        )
    content: Json = manifest
    return content


def _is_manifest(file: Path) -> bool:
    """Whether xmc wrote it, in whatever version."""
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _describes_arrays(listing: Any) -> bool:
    return isinstance(listing, dict) and all(
        isinstance(entry, dict) and {"dtype", "shape", "crc32"} <= entry.keys()
        for entry in listing.values()
    )


def _crc32(array: NDArray[Any]) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data) if array.size else 0
