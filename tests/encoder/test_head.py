import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.sparse import csr_array, random_array

from tests.reference import encoder as reference
from xmc_core.encoder.head import Head, LevelTargets
from xmc_core.encoder.losses import rate_factor, row_losses

N, DIMS = 9, 5
POINTER = np.array([0, 3, 3, 4, 9, 12])


@pytest.fixture
def level():
    """Twelve nodes below five parents, one of them childless; row 0 has neither truth nor beam."""
    rng = np.random.default_rng(3)
    targets = csr_array(
        random_array((N, 12), density=0.15, rng=rng, format="csr", dtype=np.float32)
    )
    active = csr_array(random_array((N, 5), density=0.3, rng=rng, format="csr", dtype=np.float32))
    keep = csr_array(np.diag((np.arange(N) > 0).astype(np.float32)))
    targets, active = csr_array(keep @ targets), csr_array(keep @ active)
    for matrix in (targets, active):
        matrix.eliminate_zeros()
        matrix.sort_indices()
    return targets, active


@pytest.fixture
def head():
    rng = np.random.default_rng(4)
    return Head(
        rng.normal(size=(12, DIMS)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    )


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5, 6, 7, 8], [5, 2], [0]])
@pytest.mark.parametrize("everything", [False, True])
def test_candidates_agree_with_the_reference(level, rows, everything):
    targets, active = level
    active = None if everything else active
    found = LevelTargets(targets, POINTER, active).candidates(np.array(rows))
    for position, row in enumerate(rows):
        nodes, true = reference.candidates(
            targets.toarray(), POINTER, None if everything else active.toarray(), row
        )
        mask = np.ones(len(found.nodes), bool) if found.mask is None else found.mask[position]
        assert set(found.nodes[mask]) == nodes
        assert set(found.nodes[found.truth[position] > 0]) == true


@pytest.mark.parametrize("kind", ["squared_hinge", "hinge", "bce"])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_agrees_with_the_reference(level, head, kind, everything, weighted):
    targets, active = level
    active = None if everything else active
    vectors = np.random.default_rng(5).normal(size=(N, DIMS)).astype(np.float32)
    rows = np.arange(N)
    task = LevelTargets(targets, POINTER, active, weighted)
    found = head.loss(torch.from_numpy(vectors), task.candidates(rows), kind)
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    expected = []
    for row in rows:
        nodes, true = reference.candidates(
            targets.toarray(), POINTER, None if everything else active.toarray(), row
        )
        counts = targets.toarray()[row] if weighted else None
        expected.append(reference.row_loss(vectors[row], weight, bias, nodes, true, kind, counts))
    assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_rows_loss_does_not_depend_on_the_rest_of_the_batch(level, head):
    task = LevelTargets(*level[:1], POINTER, level[1])
    vectors = torch.from_numpy(np.random.default_rng(5).normal(size=(N, DIMS)).astype(np.float32))
    together = head.loss(vectors, task.candidates(np.arange(N)), "squared_hinge")
    alone = [
        head.loss(vectors[r : r + 1], task.candidates(np.array([r])), "squared_hinge")[0]
        for r in range(N)
    ]
    assert_allclose(together.detach(), torch.stack(alone).detach(), rtol=1e-6)


def test_a_row_without_candidates_costs_nothing_and_moves_nothing():
    scores = torch.ones(2, 3, requires_grad=True)
    mask = torch.tensor([[False] * 3, [True] * 3])
    losses = row_losses(scores, torch.zeros(2, 3), mask, "squared_hinge")
    losses.sum().backward()
    assert losses[0] == 0
    assert scores.grad[0].tolist() == [0, 0, 0]


def test_children_inherit_their_parents_weights(head):
    child = head.inherited(np.array([2, 2, 7]))
    assert_allclose(child.weight.detach(), head.weight.detach()[[2, 2, 7]])
    assert_allclose(child.bias.detach(), head.bias.detach()[[2, 2, 7]])


def test_random_heads_follow_the_seed():
    first, again, other = (Head.random(4, DIMS, seed).weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.9), (10, 0.0), (10, 0.3), (7, 0.99)])
def test_no_step_has_rate_zero_and_one_reaches_the_peak(steps, warmup):
    factors = [rate_factor(step, steps, warmup) for step in range(steps)]
    assert min(factors) > 0
    assert max(factors) == 1
