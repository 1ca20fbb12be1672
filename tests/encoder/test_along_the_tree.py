import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from xmc_core.config import Config
from xmc_core.encoder.contrastive import Relations
from xmc_core.encoder.head import Head
from xmc_core.errors import ConfigError, DataError, ShapeError
from xmc_core.models import xr_transformer
from xmc_core.models.xr_transformer import fine_tune, sample_rows
from xmc_core.reporting import Recorder
from xmc_core.tree import LabelTree


@pytest.fixture(scope="module")
def X(planted):
    """Bag of words of the planted texts, rows of unit length."""
    texts = planted[0]
    vocabulary = {
        word: i for i, word in enumerate(sorted({w for text in texts for w in text.split()}))
    }
    dense = np.zeros((len(texts), len(vocabulary)), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            dense[row, vocabulary[word]] += 1
    return csr_array(dense / np.linalg.norm(dense, axis=1, keepdims=True))


def settings(tiny_folder, **changes):
    values = {
        "name": str(tiny_folder), "max_length": 16, "batch_size": 8, "batch_tokens": 64,
        "levels": 2, "steps": [4, 5], "learning_rate": 1e-3, "precision": "fp32", "beam_size": 1,
    }  # fmt: skip
    return Config().replace(encoder={**values, **changes}, n_threads=1)


def tune(tiny_folder, planted, X, tree, **changes):
    report = Recorder()
    texts, Y = planted
    return fine_tune(texts, X, Y, tree, settings(tiny_folder, **changes), report=report), report


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"joint_ranker": False},
        {"head_init": "inherit"},
        {"head_init": "none"},
        {"levels": 3, "steps": [2, 2, 2], "loss": "bce"},
        {"leaf_only": True, "steps": [4]},
        {"pooling": "first"},
        {"pooling": "pooler"},
        {"loss": "hinge", "weighted": True, "negatives": ["teacher_forcing"]},
        {"negatives": ["matcher_aware"], "batch_size": [8, 12]},
        {"gradient_checkpointing": True},
        {"frozen_layers": 1, "gradient_checkpointing": True},
        {"precision": "bf16"},
        {"contrastive": 1.0},
        {"contrastive": 1.0, "leaf_only": True, "steps": [4], "gradient_checkpointing": True},
        {"validation_rows": 20, "validate_every": 2, "patience": 1},
    ],
)
def test_every_way_of_training_gives_finite_unit_rows(tiny_folder, planted, X, tree, changes):
    tuned, _ = tune(tiny_folder, planted, X, tree, **changes)
    assert tuned.embeddings.shape == (120, 32)
    assert tuned.embeddings.dtype == np.float16
    lengths = np.linalg.norm(tuned.embeddings.astype(np.float64), axis=1)
    assert lengths == pytest.approx(1, rel=2**-10)
    assert all(np.isfinite(point.loss) for point in tuned.curve)


def test_walks_down_the_levels_and_counts_the_steps_on(tiny_folder, planted, X, tree):
    tuned, report = tune(tiny_folder, planted, X, tree)
    assert [(point.step, point.level) for point in tuned.curve] == [
        (s, 1 if s <= 4 else 2) for s in range(1, 10)
    ]
    told = [event["text"] for event in report.events if event["event"] == "message"]
    assert told == [
        "level 1: 2 nodes, 4 steps, 64 documents",
        "level 2: 4 nodes, 5 steps, 80 documents",
    ]


def test_a_level_is_prepared_on_the_documents_of_its_steps_at_least(tiny_folder, planted, X, tree):
    _, report = tune(tiny_folder, planted, X, tree, rows_per_node=0)
    told = [event["text"] for event in report.events if event["event"] == "message"]
    assert [text.rpartition(", ")[2] for text in told] == ["32 documents", "40 documents"]


def test_the_end_is_a_mean_of_pretrained_and_fine_tuned_weights(tiny_folder, planted, X, tree):
    frozen, tuned, half = (
        [p.detach().numpy() for p in tune(tiny_folder, planted, X, tree, **changes)[0]
         .encoder.model.parameters()]
        for changes in ({"levels": 0}, {"pretrained_share": 0.0}, {"pretrained_share": 0.25})
    )  # fmt: skip
    moved = 0
    for before, after, mean in zip(frozen, tuned, half, strict=True):
        moved += not np.array_equal(before, after)
        assert_allclose(mean, 0.25 * before + 0.75 * after, atol=1e-6)
    assert moved > 20


def test_frozen_layers_do_not_move(tiny_folder, planted, X, tree):
    tuned, _ = tune(tiny_folder, planted, X, tree, frozen_layers=1)
    before, _ = tune(tiny_folder, planted, X, tree, levels=0)
    pairs = zip(
        tuned.encoder.model.named_parameters(), before.encoder.model.parameters(), strict=True
    )
    moved = {name for (name, now), then in pairs if not np.array_equal(now.detach(), then.detach())}
    assert len(moved) > 8
    assert all(name.startswith("encoder.layer.1.") for name in moved)


def test_one_layer_at_least_is_trained(tiny_folder):
    config = settings(tiny_folder, frozen_layers=2).encoder
    with pytest.raises(ConfigError, match=r"frozen_layers is 2 but .* has 2 layers; leave one"):
        xr_transformer.TextEncoder.pretrained(config)


def test_same_seed_same_embeddings_on_any_number_of_threads(tiny_folder, planted, X, tree):
    texts, Y = planted
    first, _ = tune(tiny_folder, planted, X, tree)
    config = settings(tiny_folder).replace(n_threads=3)
    again = fine_tune(texts, X, Y, tree, config)
    assert_array_equal(again.embeddings, first.embeddings)
    assert again.curve == first.curve


def test_frozen_is_the_pretrained_encoder_with_one_pass(tiny_folder, planted, X, tree, monkeypatch):
    passes = []
    embed = xr_transformer.TextEncoder.embed
    monkeypatch.setattr(
        xr_transformer.TextEncoder,
        "embed",
        lambda self, texts, *a, **k: passes.append(len(texts)) or embed(self, texts, *a, **k),
    )
    tuned, _ = tune(tiny_folder, planted, X, tree, levels=0)
    assert passes == [120]
    assert tuned.curve == ()


def test_embeddings_are_those_of_the_encoder_that_is_returned(tiny_folder, planted, X, tree):
    tuned, _ = tune(tiny_folder, planted, X, tree)
    assert_array_equal(
        tuned.encoder.embed(planted[0], settings(tiny_folder).encoder), tuned.embeddings
    )


def test_a_linear_start_begins_lower_than_a_random_one(tiny_folder, planted, X, tree):
    warm, cold = (
        tune(tiny_folder, planted, X, tree, head_init=kind)[0].curve[0].loss
        for kind in ("linear", "none")
    )
    assert warm < 0.8 * cold


def test_candidates_are_true_parents_children_and_those_the_beam_reaches(
    tiny_folder, planted, X, tree, monkeypatch
):
    texts, Y = planted
    wrong = Y[np.roll(np.arange(120), 60)].toarray()
    labels = Y.toarray()
    labels[:20] = wrong[:20]  # the beam goes by the text, the truth by the label
    seen = []
    train = xr_transformer.train_level_head
    monkeypatch.setattr(
        xr_transformer,
        "train_level_head",
        lambda *args, **kwargs: seen.append(args[3]) or train(*args, **kwargs),
    )
    # Fifteen steps of eight documents: all 120 are in the sample.
    tune(tiny_folder, (texts, csr_array(labels)), X, tree, steps=[15, 15])
    first, second = seen
    assert first.active is None
    parents = tree.targets(csr_array(labels))[0].toarray() > 0
    active = second.active.toarray() > 0
    assert (active | parents == active).all()
    assert parents.sum() < active.sum() < 2 * parents.sum()


def test_fine_tuning_along_the_tree_brings_texts_of_a_label_together(tiny_folder, planted, X, tree):
    label = planted[1].indices

    def scatter(embeddings):
        means = np.array([embeddings[label == k].mean(axis=0) for k in range(12)])
        return (embeddings - means[label]).var(axis=0).sum() / embeddings.var(axis=0).sum()

    frozen, _ = tune(tiny_folder, planted, X, tree, levels=0)
    tuned, _ = tune(
        tiny_folder, planted, X, tree, levels=3, steps=[20, 20, 40], learning_rate=3e-3,
        batch_size=16, head_learning_rate=1e-2, pretrained_share=0.0,
    )  # fmt: skip
    assert scatter(tuned.embeddings) < 0.9 * scatter(frozen.embeddings)
    drawn, _ = tune(
        tiny_folder, planted, X, tree, levels=3, steps=[20, 20, 40], learning_rate=3e-3,
        batch_size=16, head_learning_rate=1e-2, pretrained_share=0.0, contrastive=1.0,
    )  # fmt: skip
    assert scatter(drawn.embeddings) < 0.9 * scatter(tuned.embeddings)


def test_the_contrastive_loss_meets_a_label_twice_in_a_batch(
    tiny_folder, planted, X, tree, monkeypatch
):
    batches = []
    shares = Relations.shares

    def watched(self, rows):
        found = shares(self, rows)
        batches.append((rows, found))
        return found

    monkeypatch.setattr(Relations, "shares", watched)
    _, report = tune(tiny_folder, planted, X, tree, contrastive=1.0, batch_size=8)
    assert len(batches) == 9  # one a step
    for rows, found in batches:
        assert 4 < len(set(rows.tolist())) == len(rows) <= 8
        assert (found.sum(axis=1) > 0.99).all()
    told = [event["text"] for event in report.events if event["event"] == "message"]
    documents = [int(text.split()[-2]) for text in told]
    assert all(half < found <= 2 * half for half, found in zip((32, 40), documents, strict=True))


def test_an_overlapping_tree_is_fine(tiny_folder, planted, X):
    tree = LabelTree.from_leaves([[0, 1, 2, 3], [3, 4, 5], [6, 7, 8], [8, 9, 10, 11]], branching=2)
    tuned, _ = tune(tiny_folder, planted, X, tree, levels=3, steps=[2])
    assert len(tuned.curve) == 6


def test_what_does_not_fit_is_refused_before_the_encoder_is_loaded(planted, X, tree, tmp_path):
    texts, Y = planted
    config = settings(tmp_path / "no such folder", levels=4)
    with pytest.raises(ConfigError, match=r"encoder\.levels is 4"):
        fine_tune(texts, X, Y, tree, config)
    with pytest.raises(ShapeError, match=r"119 texts, 120 rows of X and 120 of Y"):
        fine_tune(texts[1:], X, Y, tree, config)


def test_no_documents_are_refused(tiny_folder, tree):
    none = csr_array((0, 12), dtype=np.float32)
    with pytest.raises(DataError, match="no training documents"):
        fine_tune([], none, none, tree, settings(tiny_folder))


def test_samples_are_different_rows_in_order():
    odd = np.arange(1, 2001, 2, dtype=np.int32)
    rows = sample_rows(odd, 100, seed=3)
    assert len(set(rows)) == 100
    assert set(rows) <= set(odd)
    assert (np.diff(rows) > 0).all()
    assert_array_equal(rows, sample_rows(odd, 100, seed=3))
    assert_array_equal(sample_rows(odd[:5], 100, seed=3), odd[:5])


def test_heads_of_the_first_level_have_nobody_to_inherit_from(
    tiny_folder, planted, X, tree, monkeypatch
):
    made = []
    random = Head.random
    monkeypatch.setattr(Head, "random", lambda *args: made.append(args) or random(*args))
    tune(tiny_folder, planted, X, tree, head_init="inherit")
    assert [args[0] for args in made] == [2]
