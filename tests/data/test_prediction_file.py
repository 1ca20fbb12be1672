"""Files of predictions from anywhere."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import coo_array, csr_array, save_npz

from xmc_core.data.prediction_file import read_predictions, write_answers
from xmc_core.data.prediction_npz import MOST_LABELS
from xmc_core.errors import ConfigError, DataError

NAMES = ["bread", "cheese, blue", "3", "0"]
LABELS = [[1, 0], [2, -1], [-1, -1]]
SCORES = [[0.75, 0.5], [0.25, -np.inf], [-np.inf, -np.inf]]


def check(path: Path, scores=SCORES, **more) -> None:
    found = read_predictions(path, NAMES, 3, **more)
    assert found.labels.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert_array_equal(found.labels, LABELS)
    assert_array_equal(found.scores, np.array(scores, np.float32))


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


BY_NAME = lines(
    {"labels": ["bread", "cheese, blue"], "scores": [0.5, 0.75], "text": "x"},
    {"labels": ["3"], "scores": [0.25]},
    {"labels": [], "scores": []},
)
BY_NUMBER = lines(
    {"labels": [1, 0], "scores": [0.75, 0.5]},
    {"labels": [2], "scores": [0.25]},
    {"labels": [], "scores": []},
)
IN_ORDER = [[-1.0, -2.0], [-1.0, -np.inf], [-np.inf, -np.inf]]


def test_json_lines_go_by_names_or_numbers(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(BY_NAME)  # the better label stands behind
    check(path)
    path.write_text(BY_NUMBER)
    check(path)
    packed = tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(BY_NAME.encode()))
    check(packed)


def test_what_is_written_is_read_back(tmp_path):
    answers = [("one", [("cheese, blue", 0.75), ("bread", 0.5)]), ("two", [("3", 0.25)]), ("", [])]
    with (tmp_path / "p.jsonl").open("w") as file:
        write_answers(answers, file)
    check(tmp_path / "p.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_tables_hold_a_line_a_pair_in_any_order(tmp_path, suffix):
    text = 'label,row,score,remark\nbread,0,0.5,\n3,1,0.25,\n"cheese, blue",0,7.5e-1,yes\n'
    if suffix == ".tsv":
        text = text.replace('"cheese, blue"', "cheese; blue").replace(",", "\t")
        text = text.replace("cheese; blue", "cheese, blue")
    path = tmp_path / f"p{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    check(path)


def test_tables_without_scores_count_the_order(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("row,label\n0,1\n1,2\n0,0\n")
    check(path, IN_ORDER, labels="numbers")
    path.write_text("row,label\n\n")
    assert read_predictions(path, NAMES, 3).labels.shape == (3, 0)


def test_numbers_that_are_names_too_must_be_told_apart(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("row,label,score\n0,3,1\n1,0,1\n")
    with pytest.raises(DataError, match=r"names as well as numbers; say which: --labels names"):
        read_predictions(path, NAMES, 2)
    assert read_predictions(path, NAMES, 2, labels="names").labels.tolist() == [[2], [3]]
    assert read_predictions(path, NAMES, 2, labels="numbers").labels.tolist() == [[3], [0]]
    # Nothing to tell apart where both say the same.
    assert read_predictions(path, ["0", "1", "2", "3"], 2).labels.tolist() == [[3], [0]]
    with pytest.raises(ConfigError, match="labels must be one of auto, names, numbers, got 'id'"):
        read_predictions(path, NAMES, 2, labels="id")


@pytest.mark.parametrize("kind", [csr_array, coo_array])
def test_a_sparse_matrix_holds_scores(tmp_path, kind):
    dense = np.zeros((3, 3))
    dense[0, [1, 0]], dense[1, 2] = (0.75, 0.5), 0.25
    save_npz(tmp_path / "p.npz", kind(dense))
    check(tmp_path / "p.npz")
    save_npz(tmp_path / "p.npz", csr_array(dense > 0))  # which labels, without scores
    found = read_predictions(tmp_path / "p.npz", NAMES, 3)
    assert found.labels.tolist() == [[0, 1], [2, -1], [-1, -1]]
    assert found.scores[0].tolist() == [1.0, 1.0]


def test_arrays_hold_labels_and_scores(tmp_path):
    path = tmp_path / "p.npz"
    scores = np.array([[0.5, 0.75], [np.nan, 0.25], [0.0, 0.0]])
    np.savez(path, labels=np.array([[0, 1], [-1, 2], [-1, -1]], np.int64), scores=scores)
    check(path)
    np.savez(path, labels=np.array([[1, 0], [2, -1], [-1, -1]], np.int8))
    check(path, IN_ORDER)
    np.savez(path, labels=np.array(LABELS), scores=np.array([[3, 2], [1, 0], [0, 0]]))
    assert read_predictions(path, NAMES, 3).scores[0].tolist() == [3.0, 2.0]


def test_scores_that_32_bits_cannot_tell_apart_are_ranked_by_64(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, labels=np.array([[0, 1]]), scores=np.array([[0.99999999, 0.999999995]]))
    assert read_predictions(path, NAMES, 1).labels.tolist() == [[1, 0]]


def test_of_long_lists_the_best_are_kept(tmp_path):
    many = MOST_LABELS + 20
    names = [f"label {n}" for n in range(many)]
    scores = np.random.default_rng(0).permutation(many).astype(np.float32)[None] + 1
    best = np.argsort(-scores[0])[:MOST_LABELS]
    save_npz(tmp_path / "matrix.npz", csr_array(scores))
    np.savez(tmp_path / "arrays.npz", labels=np.arange(many)[None], scores=scores)
    line = {"labels": names, "scores": scores[0].tolist()}
    (tmp_path / "lines.jsonl").write_text(lines(line))
    table = "".join(f"0,{n},{s}\n" for n, s in zip(names, scores[0], strict=True))
    (tmp_path / "table.csv").write_text("row,label,score\n" + table)
    for path in tmp_path.iterdir():
        assert_array_equal(read_predictions(path, names, 1).labels[0], best, str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"labels": ["bread"], "scores": []}',
            r"line 1: expected .* two lists of the same length",
        ),
        ('{"scores": []}', r"line 1: expected .* two lists of the same length"),
        ('{"labels": []}', r"line 1: expected .* two lists of the same length"),
        ('{"labels": ["z"], "scores": [1]}', "line 1: the data set has no label 'z'; labels go by"),
        ('{"labels": ["1"], "scores": [1]}', r"no label '1'; .* names \(a number goes without"),
        ('{"labels": [["bread"]], "scores": [1]}', r"the data set has no label \['bread'\]"),
        ('{"labels": [true], "scores": [1]}', "the data set has no label True"),
        ('{"labels": [4], "scores": [1]}', "line 1: label number 4 is not between 0 and 3"),
        ('{"labels": [1], "scores": ["x"]}', "line 1: \"scores\" must be finite numbers, got 'x'"),
        ('{"labels": [1], "scores": [NaN]}', '"scores" must be finite numbers, got nan'),
        ('{"labels": [1], "scores": [1e300]}', '"scores" must be finite numbers'),
        ('{"labels": [1], "scores": [true]}', '"scores" must be finite numbers, got True'),
        ('{"labels": [1, "bread", 1], "scores": [3, 2, 1]}', "line 1: label number 1 stands twice"),
        ('{"labels": [], "scores": []}\nbroken', "line 2: not JSON"),
        ('{"labels": [], "scores": []}', "has predictions for 1 documents, the test split has 3"),
    ],
)
def test_broken_lines_are_refused(tmp_path, text, words):
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_predictions(path, NAMES, 3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: expected the header 'row,label,score', got ''"),
        ("document,label\n0,bread\n", "line 1: expected the header 'row,label,score', got"),
        ("row,label,score\n0,bread\n", "line 2: expected 3 cells as in the header, got 2"),
        ("row,label\n0,bread\n3,bread\n", "line 3: row must be a whole number from 0 to 2"),
        ("row,label\n-1,bread\n", "line 2: row must be a whole number .* got '-1'"),
        (f"row,label\n{'9' * 5000},bread\n", "line 2: row must be a whole number from 0 to 2"),
        (f"row,label\n0,{'9' * 5000}\n", "line 2: the data set has no label '9999"),
        ("row,label\r0,bread\r1,bread\r", "line 1: this is no line of a table .* end in"),
        (f"row,label\n0,{'a' * 140_000}\n", "line 2: this is no line of a table .* field limit"),
        ("row,label,score\n0,bread,high\n", "line 2: score must be a finite number, got 'high'"),
        ("row,label,score\n0,bread,inf\n", "line 2: score must be a finite number, got 'inf'"),
        ("row,label\n0,bread\n\n1,milk\n", "line 4: the data set has no label 'milk'; labels go"),
        ("row,label\n0,1\n0,9\n", "line 2: the data set has no label '1'; labels go by their"),
        ("row,label\n0,bread\n1,bread\n0,bread\n", "line 4: row 0 names label 'bread' a second"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, words):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_predictions(path, NAMES, 3)
    assert str(path) in str(caught.value)


def test_a_number_out_of_range_is_refused_with_its_line(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("row,label\n0,1\n0,9\n")
    with pytest.raises(DataError, match=r"line 3: .* no label '9'; numbers go from 0 to 3"):
        read_predictions(path, NAMES, 3, labels="numbers")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": [1], "b": [2]}, "holds a, b; expected a sparse matrix"),
        ({"labels": [1, 2, 3]}, r"array labels: expected whole numbers, 3 rows by k.* \(3,\)"),
        ({"labels": [[1.0]] * 3}, "array labels: expected whole numbers.* got float64"),
        ({"labels": [[1]] * 2}, r"one row for each test document; got int64 \(2, 1\)"),
        ({"labels": [[1], [0], [4]]}, "array labels, row 2: label number 4 is not between 0 and 3"),
        ({"labels": [[1], [-2], [0]]}, "array labels, row 1: label number -2"),
        ({"labels": [[1, 0], [2, 2], [-1, -1]]}, "array labels, row 1: label 2 stands twice"),
        ({"labels": [[1]] * 3, "scores": [[1, 2]] * 3}, r"array scores: expected the shape of"),
        (
            {"labels": [[1], [1], [0]], "scores": [[0.1], [np.nan], [1]]},
            "array scores, row 1: scores must be finite numbers, got nan",
        ),
        ({"labels": [[1]] * 3, "scores": [["a"]] * 3}, "array scores: scores must be numbers"),
    ],
)
def test_broken_arrays_are_refused(tmp_path, arrays, words):
    path = tmp_path / "p.npz"
    np.savez(path, **{name: np.array(values) for name, values in arrays.items()})
    with pytest.raises(DataError, match=words) as caught:
        read_predictions(path, NAMES, 3)
    assert str(path) in str(caught.value)


def test_broken_matrices_are_refused(tmp_path):
    path = tmp_path / "p.npz"
    save_npz(path, csr_array(np.ones((2, 4))))
    with pytest.raises(DataError, match="2 rows by 4 columns; the data set has 3 test documents"):
        read_predictions(path, NAMES, 3)
    save_npz(path, csr_array(np.ones((3, 5))))
    with pytest.raises(DataError, match=r"3 rows by 5 columns; .* and 4 labels"):
        read_predictions(path, NAMES, 3)
    save_npz(path, csr_array([[1.0], [2.0], [np.inf]]))
    with pytest.raises(DataError, match="the matrix, row 2: scores must be finite numbers"):
        read_predictions(path, NAMES, 3)
    for content in (b"", b"no zip at all", path.read_bytes()[:90]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is no npz file that can be read"):
            read_predictions(path, NAMES, 3)
    np.savez(path, labels=np.array([{}], object))
    with pytest.raises(DataError, match="is no npz file that can be read"):
        read_predictions(path, NAMES, 3)
    for name in ("absent.npz", "absent.csv", "absent"):
        with pytest.raises(DataError, match=f"cannot read .*{name}: No such file"):
            read_predictions(tmp_path / name, NAMES, 3)
