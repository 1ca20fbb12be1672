"""JSON lines in, documents out: every rule about a user's files is enforced here.

One document a line, `{"text": "...", "labels": ["...", ...]}`; other keys are ignored, so are blank
lines. Files that end in .gz or .xz are unpacked while they are read. The first line that breaks a
rule raises a DataError with the file, the line, the rule and the way out; with `on_error` a caller
gets every such error instead, and the offending lines are passed over.
"""

import gzip
import json
import lzma
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from xmc_core.data.documents import Collector, Documents
from xmc_core.errors import DataError
from xmc_core.reporting import PROGRESS_SECONDS, SILENT, Reporter

OnError = Callable[[DataError], None]

EXAMPLE = '{"text": "...", "labels": ["...", "..."]}'
MEGABYTE = 10**6
MAGIC = {
    b"\x1f\x8b": "gzip (.gz)",
    b"\xfd7": "xz (.xz)",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""What a file that is no UTF-8 most often is, by its first two bytes."""


def raise_error(error: DataError) -> None:
    """The `on_error` that stops at the first error."""
    raise error


def read_documents(
    path: Path | str, *, report: Reporter = SILENT, on_error: OnError = raise_error
) -> Documents:
    """Read a file of documents.

    Raises
    ------
    DataError
        If the file is missing, empty, cut off or damaged, or a line is not UTF-8, not JSON, or not
        an object with a string `text` and a list of strings `labels`.
    """
    path = Path(path)
    collector = Collector(str(path))
    wrong = 0

    def count_wrong(error: DataError) -> None:
        nonlocal wrong
        wrong += 1
        on_error(error)

    for number, line in text_lines(path, report, count_wrong):
        try:
            collector.add(*_parse_document(line))
        except DataError as error:
            count_wrong(line_error(path, number, str(error)))
    documents = collector.finish()
    if len(documents) == 0 and wrong == 0:
        on_error(DataError(f"{path} holds no documents; it needs one a line: {EXAMPLE}."))
    return documents


def read_texts(path: Path | str, *, report: Reporter = SILENT) -> Iterator[str]:
    """Yield the texts of a file of documents; `labels` may be absent."""
    path = Path(path)
    for number, line in text_lines(path, report, raise_error):
        try:
            yield _text_of(parse_object(line))
        except DataError as error:
            raise line_error(path, number, str(error)) from None


def read_lines(file: IO[bytes], path: Path) -> Iterator[str]:
    """Yield every line as a text, an empty one, too; UTF-8 whatever the locale. `path` is what
    errors call the file."""
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise line_error(
                path,
                number,
                f"byte {error.start + 1} is not UTF-8; convert the text, for example with "
                "`iconv -f LATIN1 -t UTF-8`.",
            ) from None
        yield text.rstrip("\r\n")


def read_label_names(path: Path | str, *, on_error: OnError = raise_error) -> dict[str, str]:
    """Read a file of lines `id<TAB>name`: what the labels of the documents are called.

    An empty name counts as none. Raises DataError for a line of another form, a label with two
    names, or a file without any.
    """
    path = Path(path)
    names: dict[str, str] = {}
    for number, line in text_lines(path, SILENT, on_error):
        label, tab, name = line.partition("\t")
        if not tab or not label:
            on_error(
                line_error(
                    path,
                    number,
                    "expected `id<TAB>name`, a label as in the documents and its name.",
                )
            )
        elif name.strip() and names.setdefault(label, name.strip()) != name.strip():
            on_error(
                line_error(
                    path,
                    number,
                    f"label {label!r} is called {names[label]!r} further up; keep one of them.",
                )
            )
    if not names:
        on_error(
            DataError(
                f"{path} names no label; it needs lines `id<TAB>name`, or leave the file away."
            )
        )
    return names


def _parse_document(line: str) -> tuple[str, list[str]]:
    content = parse_object(line)
    text = _text_of(content)
    if "labels" not in content:
        raise DataError(f'the key "labels" is missing; the line must look like {EXAMPLE}.')
    labels = content["labels"]
    if not isinstance(labels, list):
        raise DataError(
            f'"labels" must be a list of strings, got {_shown(labels)}; write ["..."] or [].'
        )
    for label in labels:
        if not isinstance(label, str):
            raise DataError(
                f'"labels" must be a list of strings, one is {_shown(label)}; put it in quotes.'
            )
        if not label.strip():
            raise DataError('one of the "labels" is an empty string; leave it out.')
    return text, [_checked(label, "labels") for label in labels]


def parse_object(line: str) -> dict[str, Any]:
    """A line that holds a JSON object; DataError for anything else."""
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON ({error.msg}, column {error.colno}); each line must look like {EXAMPLE}."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; lists 1,000 deep
        raise DataError(f"not JSON that can be read ({error}); expected {EXAMPLE}.") from None
    if not isinstance(content, dict):
        raise DataError(
            f"expected an object, got {_shown(content)}; the line must look like {EXAMPLE}."
        )
    return content


def _text_of(content: dict[str, Any]) -> str:
    if "text" not in content:
        raise DataError(f'the key "text" is missing; the line must look like {EXAMPLE}.')
    text = content["text"]
    if not isinstance(text, str):
        raise DataError(
            f'"text" must be a string, got {_shown(text)}; write "" for a document without text.'
        )
    return _checked(text, "text")


def _checked(value: str, key: str) -> str:
    """JSON can spell half of a surrogate pair, which no UTF-8 file can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        broken = f"\\u{ord(value[error.start]):04x}"
        raise DataError(
            f'"{key}" holds {broken}, half of a surrogate pair, which is no text; take it out.'
        ) from None
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]} ..."


def line_error(path: Path, line: int, problem: str) -> DataError:
    """An error that says where it is."""
    return DataError(f"{path}, line {line:,}: {problem}")


def text_lines(path: Path, report: Reporter, on_error: OnError) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of all lines that are neither blank nor broken."""
    number = 0
    try:
        for number, line in enumerate(_byte_lines(path, report), start=1):
            try:
                text = line.decode("utf-8").removeprefix("\ufeff" if number == 1 else "")
            except UnicodeDecodeError as error:
                kind = MAGIC.get(line[:2]) if number == 1 else None
                looks = f" (it looks like {kind})" if kind else ""
                on_error(
                    line_error(
                        path,
                        number,
                        f"byte {error.start + 1} is not UTF-8{looks}; convert the file, "
                        "for example with `iconv -f LATIN1 -t UTF-8`.",
                    )
                )
                if kind:  # every further line would say the same
                    return
                continue
            if text.strip():
                yield number, text.rstrip("\r\n")
    except EOFError:
        on_error(
            DataError(
                f"{path} is cut off after line {number:,}: the compressed stream has no end; "
                "copy or download the file again."
            )
        )
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        on_error(
            DataError(
                f"{path} is damaged after line {number:,}, or no {path.suffix} file at all "
                f"({error}); copy or download it again."
            )
        )
    except OSError as error:
        on_error(DataError(f"cannot read {path}: {error.strerror or error}."))


def _byte_lines(path: Path, report: Reporter) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = path.stat().st_size
        began = last = time.monotonic()
        for number, line in enumerate(_unpacked(path, file) if size else ()):
            if number % 1024 == 1023 and (now := time.monotonic()) - last >= PROGRESS_SECONDS:
                last = now
                report.progress(
                    file.tell() // MEGABYTE, size // MEGABYTE, f"MB of {path.name}", now - began
                )
            yield line


def _unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    return lzma.open(file) if path.suffix == ".xz" else file
