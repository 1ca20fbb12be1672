"""Texts with the labels that somebody gave them, before they become a `Dataset`."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from xmc_core.types import Indices, Pointers


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Documents of one origin. Labels of document i: `labels[pointer[i]:pointer[i + 1]]`."""

    source: str
    """A file, or whatever else an error message should name."""

    texts: list[str]
    names: list[str]
    """Label l is called names[l]; numbered in the order in which they first occur."""

    pointer: Pointers
    """(n_documents + 1,)."""

    labels: Indices
    """(pointer[-1],); no label twice in a document."""

    duplicates: int = 0
    """Labels that a document named a second time, and that were left out."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def without_labels(self) -> int:
        """Documents that have no label at all."""
        return int(np.count_nonzero(np.diff(self.pointer) == 0))

    @property
    def empty_texts(self) -> int:
        """Documents whose text holds nothing but white space."""
        return sum(not text.strip() for text in self.texts)

    def take(self, rows: Iterable[int], source: str) -> "Documents":
        """The documents `rows`, in that order; names stay numbered as they are."""
        rows = list(rows)
        sizes = np.diff(self.pointer)[rows]
        pointer = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        # Positions of the kept labels: the start of each document, and 0, 1, 2 ... within it.
        within = np.arange(pointer[-1]) - np.repeat(pointer[:-1], sizes)
        kept = np.repeat(self.pointer[:-1][rows], sizes) + within
        texts = [self.texts[row] for row in rows]
        return Documents(source, texts, self.names, pointer, self.labels[kept])


class Collector:
    """Gathers documents one by one; labels are numbered on the way, which keeps 3 million documents
    with 15 million labels within 100 MB besides the texts."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.texts: list[str] = []
        self.duplicates = 0
        self._numbers: dict[str, int] = {}
        self._labels = array("i")
        self._ends = array("q", [0])

    def add(self, text: str, labels: Iterable[str]) -> None:
        numbers = [self._numbers.setdefault(label, len(self._numbers)) for label in labels]
        unique = dict.fromkeys(numbers)
        self.duplicates += len(numbers) - len(unique)
        self._labels.extend(unique)
        self._ends.append(len(self._labels))
        self.texts.append(text)

    def finish(self) -> Documents:
        return Documents(
            self.source,
            self.texts,
            list(self._numbers),
            np.array(self._ends, dtype=np.int64),
            np.array(self._labels, dtype=np.int32),
            self.duplicates,
        )
