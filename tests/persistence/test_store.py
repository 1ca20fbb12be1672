"""Folders of arrays: the same back, the same bytes, and no damage unnoticed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, random_array

from xmc_core.errors import StoreError
from xmc_core.persistence import fresh_store, read_store, read_whole, write_store

ARRAYS = {
    "floats": np.arange(12, dtype=np.float32).reshape(3, 4),
    "counts": np.array([1, 2, 3], np.int64),
    "flags": np.array([True, False]),
    "empty": np.empty((0, 4), np.float32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}
STRINGS = {"names": ["a", "", "ü 🙂", "x\ny"], "none": []}
X = random_array(
    (20, 30), density=0.2, format="csr", dtype=np.float32, rng=np.random.default_rng(0)
)


def write(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "arrays": ARRAYS,
        "matrices": {"X": X, "nothing": csr_array((0, 5), dtype=np.float32)},
        "strings": STRINGS,
        "facts": {"rows": 20, "nested": {"a": [1, None]}},
    }
    write_store(folder, "thing", **{**content, **changes})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "store")


def test_everything_comes_back_as_it_went_in(folder: Path):
    store = read_store(folder, "thing")
    for name, array in ARRAYS.items():
        assert_array_equal(store.arrays[name], array)
        assert store.arrays[name].dtype == array.dtype
    for name, strings in STRINGS.items():
        assert store.strings(name) == strings
    assert_array_equal(store.csr("X").toarray(), X.toarray())
    assert store.csr("nothing").shape == (0, 5)
    assert store.facts["rows"] == 20
    assert store.facts["nested"] == {"a": [1, None]}


def test_matrices_keep_narrow_column_numbers_on_the_mapped_file(folder: Path):
    store = read_store(folder, "thing")
    matrix = store.csr("X")
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert np.shares_memory(matrix.indices, store.arrays["X.indices"])
    assert np.shares_memory(matrix.data, store.arrays["X.data"])
    assert_array_equal((matrix @ np.ones(30)), X @ np.ones(30))
    assert_array_equal(matrix[3:9].toarray(), X[3:9].toarray())


def test_unsorted_columns_are_sorted_on_the_way_out(tmp_path: Path):
    unsorted = csr_array(
        (np.array([1, 2, 3], np.float32), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(2, 3)
    )
    write(tmp_path / "s", matrices={"X": unsorted})
    assert_array_equal(read_store(tmp_path / "s", "thing").csr("X").indices, [0, 2, 1])


def test_arrays_are_mapped_read_only(folder: Path):
    array = read_store(folder, "thing").arrays["floats"]
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0


def test_equal_content_gives_equal_bytes(folder: Path, tmp_path: Path):
    other = write(tmp_path / "other", arrays=dict(reversed(ARRAYS.items())))
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
        f.name: f.read_bytes() for f in other.iterdir()
    }


def test_a_store_can_be_moved(folder: Path, tmp_path: Path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert read_store(tmp_path / "elsewhere", "thing").strings("names") == STRINGS["names"]


def test_nothing_is_pickled(tmp_path: Path):
    with pytest.raises(ValueError, match="pickle"):
        write(tmp_path / "s", arrays={"objects": np.array([{}, None])})


def damaged(folder: Path, words: str, **options: bool) -> None:
    with pytest.raises(StoreError, match=words):
        read_store(folder, "thing", **options)


def test_another_kind_is_refused(folder: Path):
    with pytest.raises(StoreError, match="store holds a thing, not a label-tree"):
        read_store(folder, "label-tree")


def test_a_folder_without_manifest_is_refused(tmp_path: Path):
    damaged(tmp_path, r"is not a saved xmc folder: it has no manifest.json")
    damaged(tmp_path / "none", "is not a saved xmc folder")
    (tmp_path / "file").touch()
    damaged(tmp_path / "file", "cannot read .*Not a directory")


def start(**content: Any) -> bytes:
    return json.dumps({"format": "xmc-store", "version": 1, "kind": "thing", **content}).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "is not an xmc manifest"),
        (b'{"format": "other"}', "is not an xmc manifest"),
        (b'{"format": "xmc-store", "version": 99}', "has format version 99; this release reads 1"),
        (b'{"format": "xmc-store", "version": 1, "kind": "thing"}', "lacks arrays, facts; restore"),
        (start(facts=None, arrays={}), "does not describe a store"),
        (start(facts={}, arrays=None), "does not describe a store"),
        (start(facts={}, arrays={"a": {"dtype": "int64", "shape": [1]}}), "does not describe a"),
    ],
)
def test_a_broken_manifest_is_refused(folder: Path, content: bytes, words: str):
    (folder / "manifest.json").write_bytes(content)
    damaged(folder, words)


def test_a_missing_file_is_named(folder: Path):
    (folder / "counts.npy").unlink()
    damaged(folder, r"counts.npy is missing; the folder is incomplete")


def test_a_truncated_file_is_named(folder: Path):
    file = folder / "floats.npy"
    file.write_bytes(file.read_bytes()[:-8])
    damaged(folder, r"floats.npy is damaged")
    file.write_bytes(b"")
    damaged(folder, r"floats.npy is damaged")


def test_another_shape_or_type_is_named(folder: Path):
    np.save(folder / "counts.npy", np.array([1, 2], np.int64))
    damaged(folder, r"counts.npy holds .*the manifest says .*it was altered")
    np.save(folder / "counts.npy", np.array([1, 2, 3], np.int32))
    damaged(folder, r"counts.npy holds")


def test_a_flipped_byte_is_noticed(folder: Path):
    file = folder / "floats.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    damaged(folder, r"floats.npy does not match its checksum")


def test_large_arrays_are_compared_only_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xmc_core.persistence.store.CHECKED_BYTES", 8)
    file = folder / "floats.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    read_store(folder, "thing")
    damaged(folder, "does not match its checksum", verify=True)


def test_the_manifest_lists_every_array(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {f.stem for f in folder.glob("*.npy")}
    assert manifest["arrays"].keys() == files
    assert not re.search(r"\d{4}-\d\d-\d\d|:\d\d:", json.dumps(manifest))


def save(folder: Path, **changes: Any) -> None:
    with fresh_store(folder) as fresh:
        write(fresh, **changes)


def test_what_was_opened_from_a_folder_can_be_saved_there_again(tmp_path: Path):
    save(tmp_path / "store")
    opened = read_store(tmp_path / "store", "thing")
    save(tmp_path / "store", arrays=opened.arrays, matrices={"X": opened.csr("X")}, strings={})
    again = read_store(tmp_path / "store", "thing")
    for name, array in ARRAYS.items():
        assert_array_equal(again.arrays[name], array)
        assert_array_equal(opened.arrays[name], array)  # the old file is still there for it
    assert_array_equal(again.csr("X").toarray(), X.toarray())


def test_parts_of_what_was_saved_before_do_not_stay(tmp_path: Path):
    save(tmp_path / "store")
    (tmp_path / "store" / "part").mkdir()
    save(tmp_path / "store", strings={})
    assert not (tmp_path / "store" / "part").exists()
    assert not (tmp_path / "store" / "names.utf8.npy").exists()


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="holds files that xmc did not write"):
        save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty")
    assert read_store(tmp_path / "empty", "thing").facts["rows"] == 20


@pytest.mark.parametrize("manifest", ['{"name": "a web page"}', "[]", "{", None])
def test_what_xmc_did_not_write_is_not_replaced(tmp_path: Path, manifest: str | None):
    (tmp_path / "own.txt").write_text("precious")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(StoreError, match="holds files that xmc did not write"):
        save(tmp_path)
    assert (tmp_path / "own.txt").read_text() == "precious"
    with pytest.raises(StoreError, match=r"own.txt is a file, and what is saved is a folder"):
        save(tmp_path / "own.txt")
    assert (tmp_path / "own.txt").read_text() == "precious"


def test_a_store_of_another_version_may_be_replaced(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    save(folder)
    assert read_store(folder, "thing").facts["rows"] == 20


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path: Path):
    save(tmp_path / "store", facts={"half": 1})
    reads = []

    def read() -> tuple[int, int]:
        first = read_store(tmp_path / "store", "thing").facts["half"]
        if not reads:
            save(tmp_path / "store", facts={"half": 2})
        reads.append(first)
        return first, read_store(tmp_path / "store", "thing").facts["half"]

    assert read_whole(tmp_path / "store", read) == (2, 2)
    assert reads == [1, 2]


def test_a_folder_that_fails_while_it_is_replaced_is_read_again(tmp_path: Path):
    reads = []

    def read() -> int:
        reads.append(1)
        if len(reads) == 1:
            save(tmp_path / "store")
            raise StoreError("nothing there")
        return len(reads)

    assert read_whole(tmp_path / "store", read) == 2


def test_a_folder_that_is_always_replaced_is_given_up(tmp_path: Path):
    with pytest.raises(StoreError, match="was replaced 5 times while it was read"):
        read_whole(tmp_path / "store", lambda: save(tmp_path / "store"))
