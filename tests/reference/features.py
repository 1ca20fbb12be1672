"""Features and label trees by dictionaries, loops and dense matrices."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Dense = NDArray[np.float64]


def normalised(text: str, *, lowercase: bool = True, fold_accents: bool = False) -> str:
    text = text.replace("\0", " ")
    text = "".join("?" if "\ud800" <= c <= "\udfff" else c for c in text)
    if lowercase:
        text = text.lower()
    if fold_accents:
        text = "".join(
            c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)
        )
    return text


def grams(
    text: str, min_n: int, max_n: int, *, analyzer: str = "word", **options: bool
) -> list[str]:
    """In order of their last unit, shorter ones first."""
    text = normalised(text, **options)
    if analyzer == "word":
        return [" ".join(gram) for gram in runs(re.findall(r"\w+", text), min_n, max_n)]
    if analyzer == "char":
        return ["".join(gram) for gram in runs(list(re.sub(r"\s\s+", " ", text)), min_n, max_n)]
    found = []
    for word in text.split():
        padded = [" ", *word, " "]
        found += runs(padded, min_n, max_n) or [padded]  # a short word counts whole, once
    return ["".join(gram) for gram in found]


def runs(units: list[str], min_n: int, max_n: int) -> list[list[str]]:
    return [
        units[i - n + 1 : i + 1]
        for i in range(len(units))
        for n in range(min_n, max_n + 1)
        if n <= i + 1
    ]


def tfidf(
    texts: Sequence[str],
    *,
    analyzer: str = "word",
    min_ngram: int = 1,
    max_ngram: int = 2,
    min_df: int = 2,
    max_df: float = 1.0,
    max_features: int = 0,
    sublinear: bool = True,
    weight: float = 1.0,
    blocks: Sequence[dict[str, Any]] = (),
    **options: bool,
) -> tuple[list[str], Dense]:
    """Terms in the order of their features, and rows of unit length."""
    counts = [
        Counter(grams(text, min_ngram, max_ngram, analyzer=analyzer, **options)) for text in texts
    ]
    df: Counter[str] = Counter()
    for row in counts:
        df.update(dict.fromkeys(row, 1))
    terms = [term for term in df if min_df <= df[term] <= max_df * len(texts)]
    terms.sort(key=lambda term: -df[term])  # stable: equal counts stay in order of appearance
    terms = terms[: max_features or None]
    X = np.zeros((len(texts), len(terms)))
    for i, row in enumerate(counts):
        for j, term in enumerate(terms):
            if tf := row[term]:
                tf_weight = 1 + math.log(tf) if sublinear else tf
                X[i, j] = tf_weight * (math.log((1 + len(texts)) / (1 + df[term])) + 1)
    X = unit_rows(X)
    if blocks:
        X *= weight
        for block in blocks:
            more, Z = tfidf(texts, **block, **options)
            terms, X = terms + more, np.hstack([X, block.get("weight", 1.0) * Z])
    return terms, unit_rows(X)


def unit_rows(X: Dense) -> Dense:
    lengths = np.sqrt((X * X).sum(axis=1, keepdims=True))
    return np.divide(X, lengths, out=np.zeros_like(X), where=lengths > 0)


def label_centroids(Y: Dense, X: Dense, max_features: int = 0) -> Dense:
    return unit_rows(strongest(unit_rows(Y).T @ X, max_features))


def label_features(Y: Dense, X: Dense, text: Dense, share: float) -> Dense:
    """Rows and name, label by label; a label without a name goes by its rows."""
    centroids = label_centroids(Y, X)
    mixed = [
        (1 - share) * rows + share * np.pad(name, (0, len(rows) - len(name)))
        if name.any()
        else rows
        for rows, name in zip(centroids, text, strict=True)
    ]
    return unit_rows(np.array(mixed))


def strongest(Z: Dense, max_features: int) -> Dense:
    """Zero all but the entries of largest absolute value of each row, the left ones first."""
    kept = np.zeros_like(Z)
    for row, out in zip(Z, kept, strict=True):
        order = sorted(range(len(row)), key=lambda j: (-abs(np.float32(row[j])), j))
        for j in order[: max_features or None]:
            out[j] = row[j]
    return kept


def draw(seed: int, node: int, number: int) -> int:
    """SplitMix64."""
    wrap = 2**64 - 1
    x = (seed + 0x9E3779B97F4A7C15 * (2 * node + number + 1)) & wrap
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & wrap
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & wrap
    return x ^ (x >> 31)


def halves(
    Z: Dense, rows: list[int], node: int, seed: int, max_iter: int
) -> tuple[list[int], list[int]]:
    """Balanced spherical 2-means of some rows."""
    n = len(rows)
    first = draw(seed, node, 0) % n
    step = draw(seed, node, 1) % (n - 1)
    others = [(first + 1 + (step + i) % (n - 1)) % n for i in range(n - 1)]
    different = [other for other in others if Z[rows[first]] @ Z[rows[other]] < 0.999]
    second = (different or others[-1:])[0]
    direction = Z[rows[first]] - Z[rows[second]]
    left: list[int] = []
    for _ in range(max_iter):
        ranked = sorted(rows, key=lambda row: (Z[row] @ direction, row))
        previous, left, right = left, sorted(ranked[: n // 2]), sorted(ranked[n // 2 :])
        if previous and len(set(left) ^ set(previous)) * 100 <= n:
            break
        direction = (
            unit_rows(Z[right].sum(axis=0)[None])[0] - unit_rows(Z[left].sum(axis=0)[None])[0]
        )
    return left, right


def clusters(Z: Dense, levels: int, seed: int, max_iter: int) -> list[list[int]]:
    """2^levels clusters, siblings beside each other."""
    nodes = [list(range(len(Z)))]
    for level in range(levels):
        finer: list[list[int]] = []
        for i, rows in enumerate(nodes):
            if len(rows) < 2:
                finer += [[], rows]
            else:
                finer += halves(Z, rows, 2**level + i, seed, max_iter)
        nodes = finer
    return nodes


def disentangled(
    leaves: list[list[int]],
    Y: Dense,
    beams: Dense,
    max_clusters: int,
    n_labels: int,
    min_gain: int = 1,
    popularity: float = 0.0,
) -> list[list[int]]:
    """Each label to the leaves that cover most of its samples' beams, one leaf after the other."""
    held = (beams > 0).sum(axis=0)
    worth = (held / held.mean() + 0.1) ** -popularity
    result: list[list[int]] = [[] for _ in leaves]
    for label in range(n_labels):
        home = [number for number, leaf in enumerate(leaves) if label in leaf]
        left = set(np.flatnonzero(Y[:, label]).tolist())
        chosen: list[int] = []
        while len(chosen) < max_clusters:
            best, best_gain = -1, (0.0, 0.0)
            for number in range(len(leaves)):
                met = [sample for sample in left if beams[sample, number] > 0]
                if len(met) < (min_gain if chosen else 1):
                    continue
                likes = worth[number] * sum(1 + 0.01 * beams[sample, number] for sample in met)
                gain = (likes + 1e-4 * (number in home), -float(number))
                if gain > best_gain or best < 0:
                    best, best_gain = number, gain
            if best < 0:
                break
            chosen.append(best)
            left = {sample for sample in left if beams[sample, best] == 0}
        for number in chosen or home[:1]:
            result[number].append(label)
    return result


def label_case(
    leaves: list[list[int]], Y: Dense, beams: Dense, label: int
) -> tuple[int, int, int, dict[int, tuple[int, int]]]:
    """Documents of a label; those that reach none of its leaves; those that only reach one because
    there are several; for each leaf how many reach it, and how many of these no other."""
    own = [number for number, leaf in enumerate(leaves) if label in leaf]
    met = [
        {number for number in own if beams[sample, number] > 0}
        for sample in range(len(Y))
        if Y[sample, label] > 0
    ]
    clusters = {
        number: (sum(number in m for m in met), sum(m == {number} for m in met)) for number in own
    }
    missed = sum(not m for m in met)
    kept_one = min(sum(number not in m for m in met) for number in own)
    return len(met), missed, kept_one - missed, clusters
