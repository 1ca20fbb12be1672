"""What a fine-tuning run leaves on the way, so that one that was killed goes on.

    <folder>/fingerprint       of data, settings and code; a run of another kind starts afresh
    <folder>/level-<n>/        a level as prepared: candidates, the head's first weights
    <folder>/latest/           weights, optimiser and position after some step

On CPU a run that goes on from there ends with the same bytes as one that was never stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from xmc_core.persistence.atomic import fresh_folder, put_back, write_text
from xmc_core.types import Json


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """Everything that a level's training needs to go on after a step."""

    facts: Json
    """Plain numbers: level, steps done, learning curve, best figures."""

    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Scratch:
    """The folder of one fine-tuning run."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> "Scratch":
        """The folder, without levels and weights that come from other data, settings or code. What
        else lies there stays: token ids are mapped into memory by then."""
        file = folder / "fingerprint"
        put_back(folder / "latest")
        if not file.exists() or file.read_text(encoding="utf-8") != fingerprint:
            file.unlink(missing_ok=True)  # first: killed from here on, the next run clears up, too
            for old in (folder / "latest", *folder.glob("level-*"), *folder.glob(".level-*")):
                shutil.rmtree(old, ignore_errors=True)
            write_text(file, fingerprint)
        return cls(folder)

    def level(self, number: int) -> Path:
        """Where a level is kept as prepared."""
        return self.folder / f"level-{number}"

    def save(self, saved: Saved) -> None:
        """Replace the latest checkpoint in one step."""
        with fresh_folder(self.folder / "latest") as out:
            tensors = {
                name: tensor.detach().cpu().contiguous() for name, tensor in saved.tensors.items()
            }
            save_file(tensors, out / "weights.safetensors")
            (out / "facts.json").write_text(json.dumps(saved.facts), encoding="utf-8")

    def latest(self) -> Saved | None:
        """The latest checkpoint, if there is one."""
        folder = self.folder / "latest"
        if not (folder / "facts.json").exists():
            return None
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        with safe_open(folder / "weights.safetensors", "pt") as file:
            return Saved(facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def fingerprint(arrays: Iterable[np.ndarray], settings: Json, code: Iterable[Path]) -> str:
    """What must be the same for a checkpoint to be gone on from."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    for file in sorted(code):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def packed(prefix: str, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """Tensors under numbered names, as a checkpoint holds them."""
    return {f"{prefix}.{number}": tensor for number, tensor in enumerate(tensors)}


def unpacked(prefix: str, tensors: Mapping[str, Any]) -> list[Any]:
    """What `packed` put away, in its order."""
    count = sum(name.startswith(f"{prefix}.") for name in tensors)
    return [tensors[f"{prefix}.{number}"] for number in range(count)]
