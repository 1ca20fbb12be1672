import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tests.reference import features as reference
from xmc_core.errors import ShapeError
from xmc_core.tree import LabelTree
from xmc_core.tree.ambiguity import label_case, most_ambiguous, strongest_documents

# Label 0 is "apple": documents 0-4 are about phones, 5-7 about fruit, 8 about both, 9 lost.
LEAVES = [[0, 1, 2], [3], [0, 4]]
TREE = LabelTree.from_leaves(LEAVES, branching=2)
BEAMS = np.zeros((12, 3))
BEAMS[0:5, 0] = 0.5, 0.9, 0.7, 0.7, 0.6
BEAMS[5:8, 2] = 0.2, 0.4, 0.3
BEAMS[8] = 0.95, 0.1, 0.8
BEAMS[9, 1] = BEAMS[10, 0] = BEAMS[11, 1] = 1.0
Y = np.zeros((12, 5), np.float32)
Y[:10, 0] = Y[10, 1] = Y[11, 3] = 1


def sparse(dense: np.ndarray) -> csr_array:
    return csr_array(dense.astype(np.float32))


def test_a_planted_ambiguous_label_shows_both_clusters_with_their_counts():
    case = label_case(TREE, sparse(Y), sparse(BEAMS), 0)
    assert (case.documents, case.found, case.missed) == (10, 9, 1)
    assert [(c.leaf, c.reached, c.alone) for c in case.clusters] == [(0, 6, 5), (2, 4, 3)]
    assert case.only_with_several == 3
    assert case.ambiguity == 0.3


def test_the_documents_that_no_other_cluster_finds_come_first():
    phones = strongest_documents(TREE, sparse(Y), sparse(BEAMS), 0, 0, 10)
    assert [reach.document for reach in phones] == [1, 2, 3, 4, 0, 8]
    assert [reach.alone for reach in phones] == [True] * 5 + [False]
    fruit = strongest_documents(TREE, sparse(Y), sparse(BEAMS), 0, 2, 2)
    assert [(reach.document, round(reach.score, 2)) for reach in fruit] == [(6, 0.4), (7, 0.3)]


def test_a_cluster_that_the_beam_keeps_with_score_zero_is_reached():
    beams = sparse(BEAMS)
    beams.data[beams.indptr[8] : beams.indptr[9]] = 0.0
    assert label_case(TREE, sparse(Y), beams, 0) == label_case(TREE, sparse(Y), sparse(BEAMS), 0)
    last = strongest_documents(TREE, sparse(Y), beams, 0, 2, 9)[-1]
    assert (last.document, last.score, last.alone) == (8, 0.0, False)


def test_a_label_of_one_cluster_or_of_no_document_is_not_ambiguous():
    found, n_several = most_ambiguous(TREE, sparse(Y), sparse(BEAMS), 9)
    assert ([case.label for case in found], n_several) == ([0], 1)
    one = label_case(TREE, sparse(Y), sparse(BEAMS), 3)
    assert (one.documents, one.missed, one.ambiguity) == (1, 0, 0.0)
    none = label_case(TREE, sparse(Y), sparse(BEAMS), 4)
    assert (none.documents, none.ambiguity) == (0, 0.0)
    assert strongest_documents(TREE, sparse(Y), sparse(BEAMS), 4, 2, 3) == []
    alone = LabelTree.from_leaves([[0, 1], [2, 3, 4]], branching=2)
    assert most_ambiguous(alone, sparse(Y), sparse(BEAMS[:, :2]), 9) == ([], 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.integers(1, 30))
def test_agrees_with_counting_by_hand(seed: int, n_leaves: int, n_labels: int, n_rows: int):
    rng = np.random.default_rng(seed)
    within = rng.random((n_labels, n_leaves)) < rng.choice([0.2, 0.5, 0.9])
    within[np.arange(n_labels), rng.integers(0, n_leaves, n_labels)] = True
    leaves = [np.flatnonzero(within[:, leaf]).tolist() for leaf in range(n_leaves)]
    tree = LabelTree.from_leaves(leaves, branching=2, n_labels=n_labels)
    Y = (rng.random((n_rows, n_labels)) < 0.4).astype(np.float32)
    beams = (rng.random((n_rows, n_leaves)) < 0.4) * rng.integers(1, 9, (n_rows, n_leaves)) / 8

    expected = {label: reference.label_case(leaves, Y, beams, label) for label in range(n_labels)}
    for label in range(n_labels):
        case = label_case(tree, sparse(Y), sparse(beams), label)
        clusters = {c.leaf: (c.reached, c.alone) for c in case.clusters}
        assert (case.documents, case.missed, case.only_with_several, clusters) == expected[label]
        assert [c.reached for c in case.clusters] == sorted((r for r, _ in clusters.values()))[::-1]

    several = [label for label in range(n_labels) if within[label].sum() > 1]
    found, n_several = most_ambiguous(tree, sparse(Y), sparse(beams), n_labels)

    def rank(label: int) -> tuple[float, int, int]:
        documents, _, gained, _ = expected[label]
        return -gained / max(documents, 1), -gained, label

    assert [case.label for case in found] == sorted(several, key=rank)
    assert n_several == len(several)
    assert most_ambiguous(tree, sparse(Y), sparse(beams), 1)[0] == found[:1]


def test_refuses_beams_of_another_tree():
    with pytest.raises(ShapeError, match="beams has 2 leaves but the tree has 3"):
        label_case(TREE, sparse(Y), sparse(BEAMS[:, :2]), 0)
    with pytest.raises(ShapeError, match="12 samples but beams has 11"):
        most_ambiguous(TREE, sparse(Y), sparse(BEAMS[:11]), 3)
