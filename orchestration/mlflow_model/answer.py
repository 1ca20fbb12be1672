"""Let a model answer by the library that was registered with it, in a process of its own.

answer.py BUNDLE TEXTS OUT, with that library's folder first on PYTHONPATH: TEXTS is a JSON list,
OUT becomes an npz file of labels and scores (n_texts, k); the labels' names go into a JSON list
beside it, OUT with the ending .json. Only what every release has is asked for.
"""

import json
import sys
from pathlib import Path

import numpy as np

from xmc_core.models import PipelineModel


def main(bundle: Path, texts: Path, out: Path) -> None:
    model = PipelineModel.load(bundle)
    found = model.predict(json.loads(texts.read_text(encoding="utf-8")))
    np.savez(out, labels=found.labels, scores=found.scores)
    out.with_suffix(".json").write_text(json.dumps(list(model.label_names)), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
