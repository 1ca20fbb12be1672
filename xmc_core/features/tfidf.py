r"""N-grams of words or characters weighted by tf-idf.

A word is a maximal run of characters that `\w` matches (letters, digits, the underscore, of any
script), after lower-casing. A term is min_ngram to max_ngram neighbouring words of a document, or
characters (analyzer char), or characters of what stands between white space, a space before and
after it included (char_wb). Its weight

    (1 + ln tf) * idf,    idf = ln((1 + documents) / (1 + documents with the term)) + 1

is that of scikit-learn's TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+"); rows have
unit length. Terms are numbered by falling document frequency, and where that is equal, by first
appearance: feature 0 is the most frequent term, and features that are used together lie together.

>>> vectorizer, X = fit_tfidf(["red wine", "Red, red wine", "white wine"], TfidfConfig())
>>> vectorizer.terms()
['wine', 'red', 'red wine']
>>> X.toarray().round(2)
array([[0.48, 0.62, 0.62],
       [0.37, 0.8 , 0.47],
       [1.  , 0.  , 0.  ]], dtype=float32)

Several blocks of terms lie side by side, each as long as its weight says before the row gets unit
length again:

>>> from xmc_core.config import TfidfBlock
>>> pairs = TfidfBlock(analyzer="char_wb", min_ngram=2, max_ngram=2, weight=0.5)
>>> vectorizer, X = fit_tfidf(["red", "reed"], TfidfConfig(min_df=1, blocks=(pairs,)))
>>> vectorizer.terms()
['red', 'reed', ' r', 're', 'ed', 'd ']
>>> X.toarray().round(2)
array([[0.89, 0.  , 0.22, 0.22, 0.22, 0.22],
       [0.  , 0.89, 0.22, 0.22, 0.22, 0.22]], dtype=float32)
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from xmc_core.config import TfidfConfig, config_from_mapping
from xmc_core.features.blocks import Rows, Stack, side_by_side, stack
from xmc_core.features.memory import Memory, Spare
from xmc_core.features.terms import TERM_ARRAYS, TermBlock
from xmc_core.features.tokens import GramBatch, find_grams, read_texts, text_batches
from xmc_core.features.vocabulary import Vocabulary
from xmc_core.kernels.tfidf import replace_numbers
from xmc_core.parallel import feed_threads
from xmc_core.persistence import described, fresh_store, read_store, write_store
from xmc_core.types import Indices, Pointers, SparseRows

KIND = "tfidf"


@dataclass(frozen=True, slots=True, eq=False)
class TfidfVectorizer:
    """Turns texts into rows of tf-idf weights of the terms that `fit_tfidf` has learned."""

    config: TfidfConfig

    blocks: tuple[TermBlock, ...]
    """The terms of the config itself, then of its further blocks: columns from left to right."""

    n_documents: int
    """Training documents."""

    @property
    def n_features(self) -> int:
        return sum(block.n_features for block in self.blocks)

    def terms(self) -> list[str]:
        """The n-gram of each feature, words separated by a space; two blocks may share some."""
        return [term for block in self.blocks for term in block.terms()]

    def transform(self, texts: Iterable[str], n_threads: int = -1) -> SparseRows:
        """(n_texts, n_features); a text without a known term gets an empty row.

        Texts are read in batches, so an iterator over a large corpus is never held whole.

        Raises DataError if a text is not a string.
        """

        spare = Spare(lambda: [Memory() for _ in self.blocks])

        def transform_batch(texts: list[str]) -> Rows:
            memories = spare.take()
            batch = read_texts(texts, self.config, memories[0])
            pointer, indices, values = self._joined(
                [
                    block.rows(find_grams(batch, block.config, memory), memory)
                    for block, memory in zip(self.blocks, memories, strict=True)
                ]
            )
            kept = pointer.copy(), indices.copy(), values.copy()
            spare.give_back(memories)
            return kept

        rows: list[Rows] = []
        feed_threads(transform_batch, text_batches(texts), n_threads, rows.append)
        return stack(rows, self.n_features)

    def _joined(self, rows: list[Rows]) -> Rows:
        if len(rows) == 1:
            return rows[0]
        widths = [block.n_features for block in self.blocks]
        return side_by_side(rows, widths, [block.config.weight for block in self.blocks])

    def save(self, folder: Path) -> None:
        with fresh_store(folder) as fresh:
            write_store(
                fresh,
                KIND,
                arrays={
                    f"{n}.{name}": getattr(block, name)
                    for n, block in enumerate(self.blocks)
                    for name in TERM_ARRAYS
                },
                facts={"config": asdict(self.config), "documents": self.n_documents},
            )

    @classmethod
    def load(cls, folder: Path, *, verify: bool = False) -> "TfidfVectorizer":
        """Raises StoreError if the folder is not a complete, unaltered vectorizer."""
        store = read_store(folder, KIND, verify=verify)
        with described(folder, "a vectoriser"):
            config = config_from_mapping({"tfidf": store.facts["config"]}, str(folder)).tfidf
            blocks = tuple(
                TermBlock(block, **{name: store.arrays[f"{n}.{name}"] for name in TERM_ARRAYS})
                for n, block in enumerate(config.all_blocks)
            )
            return cls(config, blocks, store.facts["documents"])


def fit_tfidf(
    texts: Iterable[str], config: TfidfConfig, n_threads: int = -1
) -> tuple[TfidfVectorizer, SparseRows]:
    """Learn the terms of a corpus and return its features, reading it once.

    Parameters
    ----------
    texts : training documents
        Read in batches of some ten thousand characters; of the corpus only the numbers of its
        n-grams are held, 4 bytes for each.
    n_threads : count, or -1 for every core
        The result does not depend on it.

    Returns
    -------
    vectorizer
    X : (n_texts, n_features), rows of unit length
        The same as vectorizer.transform(texts).

    Raises
    ------
    DataError
        If a text is not a string, or if no term survives min_df, max_df and max_features.
    """
    names = ["tfidf", *(f"tfidf.blocks[{n}]" for n in range(len(config.blocks)))]
    vocabularies = [
        Vocabulary(block, name) for block, name in zip(config.all_blocks, names, strict=True)
    ]

    Job = tuple[list[Memory], list[GramBatch]]
    Weighed = tuple[Rows, list[Memory]]
    spare = Spare(lambda: [Memory() for _ in vocabularies])
    learned: list[list[tuple[Pointers, Indices]]] = []

    def read_batch(texts: list[str]) -> Job:
        memories = spare.take()
        batch = read_texts(texts, config, memories[0])
        return memories, [
            find_grams(batch, block, memory, with_places=True)
            for block, memory in zip(config.all_blocks, memories, strict=True)
        ]

    def learn_batch(job: Job) -> None:
        memories, grams = job
        learned.append(
            [(g.documents, v.learn(g)) for v, g in zip(vocabularies, grams, strict=True)]
        )
        spare.give_back(memories)

    feed_threads(read_batch, text_batches(texts), n_threads, learn_batch)
    blocks, features = zip(*[vocabulary.select() for vocabulary in vocabularies], strict=True)
    vectorizer = TfidfVectorizer(config, blocks, vocabularies[0].n_documents)

    def weigh_batch(number: int) -> Weighed:
        memories = spare.take()
        batch, learned[number] = learned[number], []  # its numbers and rows are never both held
        rows = []
        for block, of_numbers, (documents, numbers), memory in zip(
            blocks, features, batch, memories, strict=True
        ):
            replace_numbers(numbers, of_numbers)
            rows.append(block.weigh(documents, numbers, memory))
        return vectorizer._joined(rows), memories

    # How often a term is in a row is known, so X is made once and at its full size.
    stacked = Stack(vectorizer.n_documents, sum(vocabulary.nnz for vocabulary in vocabularies))

    def put(weighed: Weighed | None) -> None:
        if weighed is not None:
            rows, memories = weighed
            stacked.put(rows)
            spare.give_back(memories)

    jobs: list[Callable[[], Weighed | None]] = [
        partial(vocabulary.write_text, *selected)
        for vocabulary, *selected in zip(vocabularies, blocks, features, strict=True)
    ]
    jobs += [partial(weigh_batch, number) for number in range(len(learned))]
    feed_threads(lambda job: job(), jobs, n_threads, put)
    return vectorizer, stacked.matrix(vectorizer.n_features)
