import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from tests.encoder.test_along_the_tree import X, settings, tune  # noqa: F401
from xmc_core.encoder import components
from xmc_core.encoder.components import (
    principal_components,
    reduce_embeddings,
    with_components,
)
from xmc_core.encoder.model import TextEncoder
from xmc_core.errors import ConfigError, DataError
from xmc_core.models.xr_transformer import fine_tune


def unit_rows(rng, shape):
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_components_keep_the_dot_products_of_rows_in_a_subspace(encoder):
    rng = np.random.default_rng(0)
    inside = unit_rows(rng, (50, 3)).astype(np.float32)
    embeddings = (inside @ np.linalg.qr(rng.normal(size=(32, 3)))[0].T).astype(np.float16)
    smaller, kept = with_components(encoder, embeddings, np.arange(50), 3)
    assert kept == pytest.approx(1, abs=1e-4)
    assert (smaller.n_dims, encoder.n_dims) == (3, 32)
    out = np.empty((50, 3), np.float16)
    reduce_embeddings(embeddings, smaller, out)
    assert_allclose(out.astype(float) @ out.T, embeddings.astype(float) @ embeddings.T, atol=3e-3)


def test_no_other_directions_keep_more(encoder):
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(300, 32)) * np.geomspace(1, 0.01, 32)).astype(np.float16)
    smaller, kept = with_components(encoder, rows, np.arange(300), 5)
    squares = np.linalg.svd(rows.astype(float), compute_uv=False) ** 2
    assert kept == pytest.approx(squares[:5].sum() / squares.sum(), rel=1e-5)
    found = ((rows.astype(float) @ smaller.components.numpy()) ** 2).sum(0)
    assert_allclose(found, squares[:5], rtol=1e-4)


def test_is_the_same_on_any_number_of_threads(encoder, monkeypatch):
    monkeypatch.setattr(components, "BLOCK_ROWS", 7)
    embeddings = unit_rows(np.random.default_rng(2), (60, 32))
    results = []
    for n_threads in (1, 3):
        smaller, _ = with_components(encoder, embeddings, np.arange(60), 8, n_threads)
        out = np.empty((60, 8), np.float16)
        reduce_embeddings(embeddings, smaller, out, n_threads)
        results.append((smaller.components.numpy(), out))
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("levels", [0, 2])
def test_the_encoder_gives_what_the_rankers_were_trained_on(
    tiny_folder, planted, X, tree, tmp_path, levels  # noqa: F811
):  # fmt: skip
    changes = {"components": 5, "levels": levels}
    tuned, report = tune(tiny_folder, planted, X, tree, **changes)
    assert tuned.embeddings.shape == (120, 5)
    assert_allclose(np.linalg.norm(tuned.embeddings.astype(float), axis=1), 1, rtol=2**-10)
    told = [e["text"] for e in report.events if e["event"] == "message"]
    assert told[-1].startswith("5 of 32 dimensions keep ")

    texts, Y = planted
    config = settings(tiny_folder, **changes)
    tuned.encoder.save(tmp_path / "encoder")
    loaded = TextEncoder.load(tmp_path / "encoder")
    assert torch.equal(loaded.components, tuned.encoder.components)
    assert_allclose(loaded.embed(texts, config.encoder), tuned.embeddings, atol=2e-3)
    in_files = fine_tune(texts, X, Y, tree, config, scratch=tmp_path / "scratch")
    assert_array_equal(in_files.embeddings, tuned.embeddings)


def test_a_frozen_encoder_holds_nothing_out(tiny_folder, planted, X, tree):  # noqa: F811
    changes = {"components": 5, "levels": 0}
    tuned, _ = tune(tiny_folder, planted, X, tree, **changes)
    asked, _ = tune(tiny_folder, planted, X, tree, validation_rows=500, **changes)
    assert_array_equal(asked.embeddings, tuned.embeddings)


def test_embeddings_that_are_not_finite_are_told():
    rows = np.ones((30, 8), np.float16)
    rows[7, 3] = np.inf
    with pytest.raises(DataError, match=r"an embedding is not finite; the encoder's training went"):
        principal_components(rows, np.arange(30, dtype=np.int32), 4)


def test_more_components_than_dimensions_are_refused(tiny_folder):
    with pytest.raises(ConfigError, match=r"encoder.components is 33 but .* has 32 dimensions"):
        TextEncoder.pretrained(settings(tiny_folder, components=33).encoder)
