"""Which documents are related, and what the loss makes of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from tests.reference import encoder as reference
from xmc_core.config import Config
from xmc_core.encoder.contrastive import Relations, contrastive_loss
from xmc_core.errors import ConfigError

LABELS = st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=9)


def matrix(labels):
    Y = np.zeros((len(labels), 6), np.float32)
    for row, of_row in enumerate(labels):
        Y[row, sorted(of_row)] = 2.0
    return csr_array(Y)


@given(LABELS, st.integers(0, 2**31))
def test_the_loss_agrees_with_the_reference(labels, seed):
    vectors = np.random.default_rng(seed).normal(size=(len(labels), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = Relations.of(matrix(labels)).shares(np.arange(len(labels)))
    loss = contrastive_loss(torch.from_numpy(vectors).float(), torch.from_numpy(shares), 0.3)
    if len(labels) == 1:
        assert float(loss) == 0.0
    else:
        expected = reference.contrastive_loss(vectors, labels, 0.3)
        assert_allclose(float(loss), expected, rtol=1e-4, atol=1e-5)


@given(LABELS, st.integers(0, 2**31))
def test_a_partner_shares_a_label_and_nobody_comes_twice(labels, seed):
    relations = Relations.of(matrix(labels))
    for row, of_row in enumerate(labels):
        found = relations.with_partners(np.array([row], np.int32), (seed,))
        others = set(found.tolist()) - {row}
        assert row in found
        wanted = any(of_row & other for i, other in enumerate(labels) if i != row)
        assert len(others) == len(found) - 1 == int(wanted)
        assert all(of_row & labels[other] for other in others)
    everyone = np.arange(len(labels), dtype=np.int32)
    assert_array_equal(relations.with_partners(everyone, (seed,)), everyone)


def test_every_document_of_a_label_is_drawn_and_rare_labels_most_often():
    """Label 0: rows 0 to 4; label 1: rows 0 and 5. 1/5 against 1/2: two in seven by the first."""
    labels = [{0, 1}, {0}, {0}, {0}, {0}, {1}]
    relations = Relations.of(matrix(labels))
    drawn = [relations.with_partners(np.array([0], np.int32), (7, step)) for step in range(2000)]
    counts = np.bincount(np.concatenate(drawn), minlength=6)
    assert counts[0] == 2000
    assert_allclose(counts[5] / 2000, 5 / 7, atol=0.04)
    assert_allclose(counts[1:5] / 2000, 2 / 7 / 4, atol=0.03)


def test_a_document_belongs_most_to_those_of_its_rare_labels():
    labels = [{0, 1}, {0}, {0}, {1}, {2}]
    shares = Relations.of(matrix(labels)).shares(np.arange(5))
    assert_allclose(shares[0], np.array([0, 1 / 3, 1 / 3, 1 / 2, 0]) / (7 / 6), rtol=1e-6)
    assert not shares[4].any()  # of a label that is its alone


def test_the_seed_decides():
    relations = Relations.of(matrix([{0}] * 9))
    rows = np.arange(3, dtype=np.int32)
    draws = [tuple(relations.with_partners(rows, (seed,))) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrastive": -1.0}, "encoder.contrastive must be 0 or more"),
        ({"temperature": 0.0}, "encoder.temperature must be above 0"),
        ({"contrastive": 1.0, "batch_size": 1}, "encoder.batch_size must be at least 2 with"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(encoder=changes)
