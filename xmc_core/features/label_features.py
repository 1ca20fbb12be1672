"""One feature vector per label: what the label tree is grown on.

>>> X = csr_array(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32))
>>> Y = csr_array(np.array([[1, 0], [1, 0], [0, 1]], np.float32))
>>> label_centroids(Y, X).toarray().round(2)
array([[0.71, 0.71, 0.  ],
       [0.  , 0.  , 1.  ]], dtype=float32)
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array, diags_array

from xmc_core.config import TreeConfig
from xmc_core.data.rows import Rows, bytes_do, empty_dense_rows, frozen
from xmc_core.errors import DataError, ShapeError
from xmc_core.features.blocks import Rows as Block
from xmc_core.features.blocks import blocks_of_work, stack
from xmc_core.features.tfidf import TfidfVectorizer
from xmc_core.kernels.arguments import read_only
from xmc_core.kernels.centroids import centroids_into
from xmc_core.kernels.dense_rows import fill_rows
from xmc_core.parallel import map_threads
from xmc_core.types import Doubles, Floats, SparseRows

BLOCK_ENTRIES = 2**18
"""Labels are taken in blocks whose positives have together about this many features (more where X
has more columns, which each block's scratch memory has, too)."""


def label_features(
    Y: SparseRows,
    X: SparseRows,
    config: TreeConfig,
    *,
    label_names: Sequence[str],
    vectorizer: TfidfVectorizer,
    n_threads: int = -1,
) -> SparseRows:
    """Represent each label as `tree.label_features` says: by its rows, by its name, or by both.

    Both are rows over the same terms, so they are added up, (1 - w) * rows + w * name, instead of
    being put side by side: a word in one label's name then meets the same word in the documents of
    another, and the words of a cluster are read off either part alike.

    Parameters
    ----------
    Y : (n_samples, n_labels)
    X : (n_samples, n_features)
        The vectorizer's columns come first; others (an embedding's) may follow.
    label_names : (n_labels,) or more

    Returns
    -------
    (n_labels, n_features)
        Rows of unit length. A label whose name has no word that the vectorizer knows goes by its
        rows, one without rows by its name; one that has neither gets an empty row.

    Raises
    ------
    DataError
        If names are asked for and no name has a known word.
    ShapeError
        If X, Y, the names and the vectorizer do not fit together.
    """
    centroids = label_centroids(Y, X, max_features=config.max_features, n_threads=n_threads)
    if config.label_features == "pifa":
        return centroids
    n_labels = Y.shape[1]
    if len(label_names) < n_labels or vectorizer.n_features > X.shape[1]:
        raise ShapeError(
            f"Y has {n_labels:,} labels but there are {len(label_names):,} names; X has "
            f"{X.shape[1]:,} columns and the vectorizer {vectorizer.n_features:,}, which must not "
            "be more."
        )
    text = vectorizer.transform(label_names[:n_labels], n_threads)
    text = csr_array((text.data, text.indices, text.indptr), shape=centroids.shape)
    named = np.diff(text.indptr) > 0
    if n_labels and not named.any():
        raise DataError(
            f"tree.label_features is {config.label_features}, but no label's name (the first is "
            f"{label_names[0]!r}) has a word that occurs in the training texts; give the labels "
            "names in labels.txt, or set tree.label_features to pifa."
        )
    share = config.text_weight if config.label_features == "both" else 1.0
    rows_share = np.where(named, 1 - share, 1).astype(np.float32)
    mixed = csr_array(diags_array(rows_share) @ centroids + np.float32(share) * text)
    mixed.eliminate_zeros()
    mixed.sort_indices()
    return unit_rows(mixed)


def unit_rows(Z: SparseRows) -> SparseRows:
    """Z with every row that is not empty at length 1."""
    lengths = np.sqrt(np.add.reduceat(np.append(Z.data.astype(np.float64) ** 2, 0), Z.indptr[:-1]))
    lengths[np.diff(Z.indptr) == 0] = 1  # reduceat gives the next entry for an empty row
    values = (Z.data / np.repeat(lengths, np.diff(Z.indptr))).astype(np.float32)
    return csr_array((values, Z.indices, Z.indptr), shape=Z.shape)


def label_centroids(
    Y: SparseRows, X: SparseRows | Rows, *, max_features: int = 0, n_threads: int = -1
) -> SparseRows:
    """Represent each label by the unit-length sum of its positive samples (PIFA).

    Parameters
    ----------
    Y : (n_samples, n_labels)
        Each row is scaled to unit length first: a sample with many labels says less about each.
    X : (n_samples, n_features)
    max_features : count
        Only this many features of largest absolute value are kept of a label, equal ones by the
        smaller number, and scaled to unit length again; 0 keeps all. Columns that nearly every
        sample fills, such as an embedding's, stay whole besides. The full sums are never held
        for more than one label per thread: with 3 million labels they would take 10 GB.

    Returns
    -------
    (n_labels, n_features)
        A label without positives gets an empty row.

    Raises
    ------
    ShapeError
        If X and Y have different numbers of samples.

    References
    ----------
    Yu, Zhong, Zhang, Chang and Dhillon, "PECOS: Prediction for Enormous and Correlated Output
    Spaces", JMLR 2022, section 3.
    """
    rows = X if isinstance(X, Rows) else Rows.of(X)

    def join(first: int, words: Block, dense: Floats) -> Block:
        return _beside(words, dense, rows.dense.first) if rows.dense.n_dims else words

    return stack(_sum_up(Y, rows, max_features, n_threads, join), rows.n_features)


def centroid_rows(Y: SparseRows, X: Rows, *, max_features: int = 0, n_threads: int = -1) -> Rows:
    """What `label_centroids` says, the dense columns of X as bytes again: an eighth of the memory,
    as 3 million labels and 768 dimensions take 27 GB in CSR. Where bytes will not do for the sums,
    they are ordinary columns.

    Raises ShapeError if X and Y have different numbers of samples.
    """
    n_dims = X.dense.n_dims
    if n_dims == 0:
        words = label_centroids(Y, X, max_features=max_features, n_threads=n_threads)
        pointer = words.indptr.astype(np.int64)
        return Rows(pointer, words.indices, words.data, X.dense, X.n_features)
    rounded = empty_dense_rows(Y.shape[1], X.dense.first, n_dims)
    looked_at: dict[int, Doubles] = {}

    def round_off(first: int, words: Block, dense: Floats) -> Block:
        looked_at[first] = np.zeros((2, n_dims))
        fill_rows(first, dense, rounded, *looked_at[first])
        return words

    words = stack(_sum_up(Y, X, max_features, n_threads, round_off), X.n_features)
    in_order = [looked_at[first] for first in sorted(looked_at)]
    if not bytes_do(*sum(in_order, np.zeros((2, n_dims)))):
        return Rows.of(label_centroids(Y, X, max_features=max_features, n_threads=n_threads))
    pointer = words.indptr.astype(np.int64)
    return Rows(pointer, words.indices, words.data, frozen(rounded), X.n_features)


def _sum_up(
    Y: SparseRows,
    rows: Rows,
    max_features: int,
    n_threads: int,
    finish: Callable[[int, Block, Floats], Block],
) -> list[Block]:
    """Centroids, block by block of labels: what `finish` makes of the number of the first one, of
    the sparse part and of the dense one."""
    n_samples, n_features = Y.shape[0], rows.n_features
    if rows.shape[0] != n_samples:
        raise ShapeError(
            f"Y has {n_samples:,} samples but X has {rows.shape[0]:,} rows; both must hold the "
            "same samples in the same order."
        )
    by_label = _by_label(Y)
    label_pointer = read_only(by_label.indptr, np.int64)
    samples = read_only(by_label.indices, np.int32)
    weights = read_only(by_label.data, np.float32)
    n_dims = rows.dense.n_dims
    most = min(max_features, n_features) if max_features else n_features

    lengths = np.diff(rows.indptr)
    entries = np.concatenate([[0], np.cumsum(lengths[samples])])[label_pointer]
    bound = np.minimum(np.diff(entries), most)  # entries a label can have
    # An entry of the dense part takes an eighth of the time of one that has to be looked up.
    work = entries + label_pointer * n_dims // 8

    def centroids_of(block: tuple[int, int]) -> Block:
        first, last = block
        totals = np.full(n_features, np.inf)
        size = int(bound[first:last].sum())
        out_pointer = np.empty(last - first + 1, np.int64)
        out_indices = np.empty(size, np.int32)
        out_values = np.empty(size, np.float32)
        out_dense = np.empty((last - first, n_dims), np.float32)
        n = centroids_into(
            label_pointer, samples, weights, rows.indptr, rows.indices, rows.values, rows.dense,
            first, last, most, totals, out_pointer, out_indices, out_values, out_dense,
        )  # fmt: skip
        words = out_pointer, out_indices[:n].copy(), out_values[:n].copy()
        return finish(first, words, out_dense)

    blocks = blocks_of_work(work, max(BLOCK_ENTRIES, 4 * n_features))
    return map_threads(
        centroids_of, blocks, n_threads, cost=lambda block: float(work[block[1]] - work[block[0]])
    )


def _beside(words: Block, dense: Floats, first_column: int) -> Block:
    """Rows of words with those of the dense columns that are not zero behind them."""
    pointer, indices, values = words
    n_dense = np.count_nonzero(dense, axis=1)
    ends = np.cumsum(n_dense)
    places = np.arange(len(indices)) + np.repeat(ends - n_dense, np.diff(pointer))
    is_dense = np.ones(len(indices) + n_dense.sum(), bool)
    is_dense[places] = False
    columns, joined = np.empty(len(is_dense), np.int32), np.empty(len(is_dense), np.float32)
    columns[places], joined[places] = indices, values
    columns[is_dense] = first_column + np.nonzero(dense)[1]
    joined[is_dense] = dense[dense != 0]
    return pointer + np.concatenate([[0], ends]), columns, joined


def _by_label(Y: SparseRows) -> SparseRows:
    """(n_labels, n_samples): Y with rows of unit length, transposed."""
    row = np.repeat(np.arange(Y.shape[0]), np.diff(Y.indptr))
    values = Y.data.astype(np.float64)
    lengths = np.sqrt(np.bincount(row, values * values, minlength=Y.shape[0]))
    lengths[lengths == 0] = 1  # rows of explicit zeros
    scaled = csr_array(((values / lengths[row]).astype(np.float32), Y.indices, Y.indptr), Y.shape)
    return csr_array(scaled.T.tocsr())
