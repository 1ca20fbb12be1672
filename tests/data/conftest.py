"""Small files of documents."""

import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

WriteLines = Callable[..., Path]


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write lines into a file, packed as its suffix says; what is no string becomes JSON."""

    def write(lines: Sequence[Any], name: str = "train.jsonl") -> Path:
        text = "".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines)
        packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix)
        content = text.encode()
        (tmp_path / name).write_bytes(packed(content) if packed else content)
        return tmp_path / name

    return write


def document(text: str, *labels: str) -> dict[str, Any]:
    return {"text": text, "labels": list(labels)}
