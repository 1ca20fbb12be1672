"""scikit-learn's TfidfVectorizer. worker_sklearn.py tfidf FOLDER THREADS SETTINGS"""

import json
import sys
from pathlib import Path

import numpy as np
from measure import finish, measured
from sklearn.feature_extraction.text import TfidfVectorizer


def tfidf(folder: Path) -> dict:
    lines = json.loads((folder / "texts.json").read_text())
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=2,
        sublinear_tf=True,
        token_pattern=r"(?u)\w+",
        dtype=np.float32,
    )
    result: dict = {}
    with measured(result):
        X = vectorizer.fit_transform(lines)
    return {**result, "features": X.shape[1]}


if __name__ == "__main__":
    finish(tfidf(Path(sys.argv[2])))
