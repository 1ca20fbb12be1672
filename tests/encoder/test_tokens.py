import numpy as np
import pytest
from numpy.testing import assert_array_equal

from xmc_core.encoder import tokens as module
from xmc_core.encoder.tokens import cut_to
from xmc_core.errors import EncoderError


def tokenize(texts, tokenizer, max_length, folder=None):
    cut_to(max_length, tokenizer)
    return module.tokenize(texts, tokenizer, max_length, folder=folder)


class Gapped:
    """A tokeniser that knows a token of a large id."""

    def __init__(self, tokenizer, largest):
        self.pad_token_id, self.backend_tokenizer = tokenizer.pad_token_id, self
        self.encode_batch_fast = tokenizer.backend_tokenizer.encode_batch_fast
        self.enable_truncation = self.no_padding = lambda *_: None
        self.get_vocab = lambda: {"first": 0, "added": largest}


TEXTS = ["t0w0 t1w1", "", "T0W0s " * 30, "strange words", "t2w2"]


def test_holds_what_the_tokeniser_says(tiny_tokenizer):
    store = tokenize(TEXTS, tiny_tokenizer, 16)
    expected = [tiny_tokenizer(text, truncation=True, max_length=16)["input_ids"] for text in TEXTS]
    assert [
        store.ids[a:b].tolist() for a, b in zip(store.offsets, store.offsets[1:], strict=False)
    ] == expected
    assert store.ids.dtype == np.uint16  # a vocabulary below 65,536


@pytest.mark.parametrize("texts", [TEXTS, []])
def test_ids_in_a_file_are_those_in_memory(tiny_tokenizer, tmp_path, texts):
    there = tokenize(texts, tiny_tokenizer, 16, tmp_path)
    here = tokenize(texts, tiny_tokenizer, 16)
    assert_array_equal(there.ids, here.ids)
    assert_array_equal(there.offsets, here.offsets)
    assert isinstance(there.ids, np.memmap) == (len(texts) > 0)


def test_widths_are_rounded_up_where_wanted(tiny_tokenizer):
    store = tokenize(TEXTS, tiny_tokenizer, 16)
    ids, mask = store.padded(np.array([0, 4]), 8)
    assert ids.shape == mask.shape == (2, 8)
    assert_array_equal(mask.sum(axis=1), store.lengths[[0, 4]])


def test_blocks_make_no_difference(tiny_tokenizer, monkeypatch):
    whole = tokenize(TEXTS, tiny_tokenizer, 16)
    monkeypatch.setattr(module, "BLOCK", 2)
    pieces = tokenize(TEXTS, tiny_tokenizer, 16)
    assert_array_equal(pieces.ids, whole.ids)
    assert_array_equal(pieces.offsets, whole.offsets)


def test_blocks_of_long_texts_are_small(tiny_tokenizer, monkeypatch):
    whole = tokenize(TEXTS, tiny_tokenizer, 16)
    encode, sizes = tiny_tokenizer.backend_tokenizer.encode_batch_fast, []
    tokenizer = Gapped(tiny_tokenizer, 5)
    tokenizer.encode_batch_fast = lambda block, **options: (
        sizes.append(len(block)) or encode(block, **options)
    )
    monkeypatch.setattr(module, "BLOCK_CHARACTERS", 40)
    pieces = tokenize(TEXTS, tokenizer, 16)
    assert sizes == [2, 1, 2]
    assert_array_equal(pieces.ids, whole.ids)
    assert_array_equal(pieces.offsets, whole.offsets)


def test_widths_do_not_pass_what_the_model_has_positions_for(tiny_tokenizer):
    store = tokenize(TEXTS, tiny_tokenizer, 16)
    assert store.padded(np.array([2, 4]), 12)[0].shape == (2, 24)
    assert store.padded(np.array([2, 4]), 12, 18)[0].shape == (2, 18)
    assert store.padded(np.array([2, 4]), 12, 10)[0].shape == (2, 16)  # no token is lost


def test_keeps_the_special_tokens_of_a_long_text(tiny_tokenizer):
    store = tokenize(["t0w0 " * 100], tiny_tokenizer, 8)
    assert len(store.ids) == 8
    assert (store.ids[0], store.ids[-1]) == (
        tiny_tokenizer.cls_token_id,
        tiny_tokenizer.sep_token_id,
    )


def test_pads_to_the_longest_of_the_rows_asked_for(tiny_tokenizer):
    store = tokenize(TEXTS, tiny_tokenizer, 16)
    ids, mask = store.padded(np.array([4, 0]))
    assert mask.tolist() == [[True, True, True, False], [True] * 4]
    assert ids[0, 3] == store.pad
    assert_array_equal(ids[1], store.ids[: store.offsets[1]])


def test_takes_some_texts(tiny_tokenizer):
    store = tokenize(TEXTS, tiny_tokenizer, 16)
    some = store.take(np.array([4, 1, 2]))
    assert len(some) == 3
    for row, text in enumerate((4, 1, 2)):
        assert_array_equal(some.padded(np.array([row]))[0], store.padded(np.array([text]))[0])


def test_many_texts_are_taken_block_by_block(tiny_tokenizer, monkeypatch):
    store = tokenize(TEXTS, tiny_tokenizer, 16)
    rows = np.random.default_rng(0).integers(0, len(TEXTS), 50)
    whole = store.take(rows)
    monkeypatch.setattr(module, "BLOCK", 7)
    pieces = store.take(rows)
    assert_array_equal(pieces.ids, whole.ids)
    assert_array_equal(pieces.ids, np.concatenate([store.take([row]).ids for row in rows]))


def test_ids_behind_a_gap_fit(tiny_tokenizer):
    assert tokenize(TEXTS, Gapped(tiny_tokenizer, 2**16 - 1), 16).ids.dtype == np.uint16
    assert tokenize(TEXTS, Gapped(tiny_tokenizer, 2**16), 16).ids.dtype == np.int32


def test_texts_without_any_token_are_one_hidden_token_wide(tiny_tokenizer):
    ids, mask = module.TokenStore(np.empty(0, np.uint16), np.zeros(3, np.int64), 7).padded([0, 1])
    assert ids.tolist() == [[7], [7]]
    assert not mask.any()


def test_an_empty_text_still_is_a_row(tiny_tokenizer):
    tiny = tokenize([""], tiny_tokenizer, 8)
    assert tiny.lengths.tolist() == [2]


def test_no_texts_are_no_rows(tiny_tokenizer):
    assert len(tokenize([], tiny_tokenizer, 8)) == 0


def test_asks_for_a_padding_token(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "_pad_token", None, raising=False)
    monkeypatch.setitem(tiny_tokenizer._special_tokens_map, "pad_token", None)
    with pytest.raises(EncoderError, match="no padding token"):
        cut_to(8, tiny_tokenizer)
