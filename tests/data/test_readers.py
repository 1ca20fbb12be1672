"""JSON lines: what is read, and every way in which a file can be wrong."""

import json
import lzma
import random
import re
from pathlib import Path

import pytest

from tests.data.conftest import WriteLines, document
from tests.reference import data as reference
from tests.shared_data import FOLDER
from xmc_core.data.documents import Documents
from xmc_core.data.readers import read_documents, read_label_names, read_texts
from xmc_core.errors import DataError
from xmc_core.reporting import Recorder

GOOD = document("a text", "x")


def rows_of(documents: Documents) -> list[tuple[str, set[str]]]:
    pieces = [
        documents.labels[a:b].tolist()
        for a, b in zip(documents.pointer[:-1], documents.pointer[1:], strict=True)
    ]
    assert all(len(set(piece)) == len(piece) for piece in pieces)
    named = [{documents.names[label] for label in piece} for piece in pieces]
    return list(zip(documents.texts, named, strict=True))


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train.jsonl.xz"])
def test_agrees_with_the_reference(write_lines: WriteLines, name: str):
    chance = random.Random(0)
    lines = [
        document(f"text {row} ümläut \u2028 \n", *chance.choices("abcdefgh", k=chance.randrange(5)))
        for row in range(300)
    ]
    path = write_lines(lines, name)
    assert rows_of(read_documents(path)) == reference.read_rows(path)


def test_agrees_with_the_reference_on_real_data():
    path = FOLDER / "eurlex-titles" / "test.jsonl.xz"
    if not path.exists():
        pytest.skip("eurlex-titles is not in ../shared/data")
    assert rows_of(read_documents(path)) == reference.read_rows(path)


def test_other_keys_and_blank_lines_and_a_byte_order_mark_do_no_harm(write_lines: WriteLines):
    line = json.dumps({"id": 7, "text": "t", "labels": ["x"], "year": None})
    path = write_lines([f"\ufeff{line}", "", "   ", f"{line}\r"])
    assert rows_of(read_documents(path)) == [("t", {"x"}), ("t", {"x"})]


def test_a_label_named_twice_counts_once_and_is_counted(write_lines: WriteLines):
    documents = read_documents(write_lines([document("t", "x", "y", "x", "x"), document("", "y")]))
    assert rows_of(documents) == [("t", {"x", "y"}), ("", {"y"})]
    assert documents.duplicates == 2


def test_documents_without_labels_or_text_are_kept_and_counted(write_lines: WriteLines):
    documents = read_documents(write_lines([document("t"), document(" ", "x"), document("u", "x")]))
    assert len(documents) == 3
    assert documents.without_labels == 1
    assert documents.empty_texts == 1


WRONG_LINES = {
    "this is not json": "not JSON (Expecting value, column 1); each line must look like {",
    '{"text": "t", "labels": ["x"]': "not JSON (Expecting ',' delimiter, column 30)",
    f"{'[' * 100_000}": "not JSON that can be read",
    '{"text": "t", "labels": ["x"], "id": ' + "7" * 5000 + "}": "not JSON that can be read",
    "[1, 2]": "expected an object, got [1, 2]",
    '{"labels": ["x"]}': 'the key "text" is missing',
    '{"text": "t"}': 'the key "labels" is missing',
    '{"text": 7, "labels": []}': '"text" must be a string, got 7',
    '{"text": null, "labels": []}': '"text" must be a string, got null; write "" for a',
    '{"text": "t", "labels": "x"}': '"labels" must be a list of strings, got "x"; write ["..."]',
    '{"text": "t", "labels": {"x": 1}}': '"labels" must be a list of strings, got {"x": 1}',
    '{"text": "t", "labels": ["x", 7]}': "list of strings, one is 7; put it in quotes",
    '{"text": "t", "labels": ["x", " "]}': 'one of the "labels" is an empty string',
    '{"text": "half \\ud83d", "labels": []}': '"text" holds \\ud83d, half of a surrogate pair',
}


@pytest.mark.parametrize("line", WRONG_LINES, ids=lambda line: line[:40])
def test_a_wrong_line_is_named_with_the_rule_and_the_way_out(write_lines: WriteLines, line: str):
    path = write_lines([GOOD, GOOD, line, GOOD])
    with pytest.raises(DataError, match=re.escape(WRONG_LINES[line])) as caught:
        read_documents(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")


def test_invalid_utf8_is_named_with_line_and_byte(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"text": "M\xfcller", "labels": []}\n')
    with pytest.raises(DataError, match=r"line 2: byte 12 is not UTF-8; .*iconv -f LATIN1"):
        read_documents(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(lzma.compress(b"{}"), "xz"), ("{}".encode("utf-16"), "UTF-16")],
    ids=["xz", "utf-16"],
)
def test_a_file_that_is_something_else_is_recognised(tmp_path: Path, content: bytes, kind: str):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"line 1: byte 1 is not UTF-8 \(it looks like {kind}"):
        read_documents(path)


def test_a_file_that_cannot_be_read_is_not_said_to_be_empty(tmp_path: Path):
    errors: list[DataError] = []
    read_documents(tmp_path, on_error=errors.append)
    assert [str(error) for error in errors] == [f"cannot read {tmp_path}: Is a directory."]


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train.jsonl.xz"])
def test_an_empty_file_holds_no_documents(write_lines: WriteLines, tmp_path: Path, name: str):
    path = write_lines([], name)
    with pytest.raises(DataError, match=r"holds no documents; it needs one a line: \{"):
        read_documents(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="holds no documents"):
        read_documents(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_truncated_file_is_cut_off(write_lines: WriteLines, suffix: str):
    path = write_lines([document(f"text {row * 7919}", "x") for row in range(3000)], f"t{suffix}")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"is cut off after line [\d,]+: .*copy or download"):
        read_documents(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_file_that_only_claims_to_be_compressed_is_damaged(tmp_path: Path, suffix: str):
    path = tmp_path / f"train.jsonl{suffix}"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match=rf"is damaged after line 0, or no {suffix} file at all"):
        read_documents(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_flipped_byte_is_noticed(write_lines: WriteLines, suffix: str):
    path = write_lines([document(f"text {row * 7919}", "x") for row in range(3000)], f"t{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_documents(path)


def test_a_missing_file_and_a_folder_cannot_be_read(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read .*/no.jsonl: No such file or directory"):
        read_documents(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read_documents(tmp_path)


def test_on_error_gets_every_problem_and_the_good_lines_are_read(write_lines: WriteLines):
    problems: list[DataError] = []
    path = write_lines([GOOD, "{", GOOD, '{"text": "t"}', GOOD])
    documents = read_documents(path, on_error=problems.append)
    assert len(documents) == 3
    assert [re.search(r"line \d", str(p))[0] for p in problems] == ["line 2", "line 4"]  # type: ignore[index]


def test_progress_is_told_in_megabytes_of_the_file(
    write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("xmc_core.data.readers.PROGRESS_SECONDS", 0.0)
    report = Recorder()
    read_documents(write_lines([document("t" * 2000, "x")] * 4000, "t.jsonl"), report=report)
    assert [event["event"] for event in report.events] == ["progress"] * 3
    last = report.events[-1]
    assert last["unit"] == "MB of t.jsonl"
    assert 0 < last["done"] < last["total"] == 8


def test_texts_alone_need_no_labels(write_lines: WriteLines):
    assert list(read_texts(write_lines([{"text": "a"}, {"text": "b", "labels": 7}]))) == ["a", "b"]
    with pytest.raises(DataError, match='line 1: the key "text" is missing'):
        list(read_texts(write_lines([{"labels": []}])))


def test_label_names_are_lines_of_id_tab_name(write_lines: WriteLines):
    path = write_lines(["10\tdomestic trade", "7\t", "10\tdomestic trade ", "8\ta\tb"], "l.txt.xz")
    assert read_label_names(path) == {"10": "domestic trade", "8": "a\tb"}


def test_a_label_with_two_names_and_a_line_without_tab_are_refused(write_lines: WriteLines):
    with pytest.raises(DataError, match=r"line 2: label '1' is called 'a' further up; keep one"):
        read_label_names(write_lines(["1\ta", "1\tb"], "labels.txt"))
    with pytest.raises(DataError, match=r"line 1: expected `id<TAB>name`"):
        read_label_names(write_lines(["1 a"], "labels.txt"))
    with pytest.raises(DataError, match="names no label"):
        read_label_names(write_lines([], "labels.txt"))
