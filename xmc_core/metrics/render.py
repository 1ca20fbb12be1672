"""A report as Markdown (pictures beside it) and as one HTML file (pictures inside it)."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    note: str = ""
    """Small print; may have several lines."""

    tone: str = ""
    """best, up, down, or nothing."""


@dataclass(frozen=True, slots=True)
class Table:
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """The first cell of each row names it."""


@dataclass(frozen=True, slots=True)
class Picture:
    file: str
    caption: str
    png: bytes
    svg: bytes = b""
    """The same, for a file beside it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One document, the labels given to it, best first, and the true ones that were not given."""

    text: str
    labels: tuple[tuple[str, float, bool], ...]
    """Name, score, right or wrong."""

    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    answers: tuple[Answer, ...]


Block = Heading | Text | Table | Picture | Answers

MARKS = {"up": "▲ ", "down": "▼ "}

CSS = """
:root { --ink: #1f2933; --faint: #66727f; --line: #e3e7ec; --page: #f5f7f9; --card: #fff;
  --good: #1c7c48; --bad: #b3372b; --accent: #3a78c9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --faint: #98a4b1; --line: #313b46;
  --page: #14191f; --card: #1d242c; --good: #5cc48d; --bad: #ef8278; --accent: #7fb0ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p { color: var(--faint); max-width: 48rem; margin: .5rem 0 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.25rem; margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { color: var(--faint); font-weight: 600; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
td small { display: block; white-space: pre-line; line-height: 1.4; color: var(--faint);
  font-weight: 400; font-size: .75rem; }
.best { font-weight: 700; color: var(--accent); }
.up { font-weight: 600; color: var(--good); } .down { font-weight: 600; color: var(--bad); }
figure { margin: 1rem 0; background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; } figure img { width: 100%; height: auto; display: block; }
figcaption { color: #66727f; font-size: .85rem; margin-top: .5rem; }
blockquote { margin: 0 0 .75rem; overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0; }
li { display: flex; gap: .6rem; padding: .15rem 0; overflow-wrap: anywhere; }
li span:last-child { margin-left: auto; color: var(--faint);
  font-variant-numeric: tabular-nums; }
.right::before { content: "✓"; color: var(--good); font-weight: 700; }
.wrong::before { content: "✗"; color: var(--bad); font-weight: 700; }
.missed { color: var(--faint); font-size: .85rem; margin-top: .6rem; }
"""


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One file that needs no other: styles and pictures are inside."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same for terminals and repositories; pictures are files in the same folder."""
    return "\n\n".join([f"# {_plain(title)}", *(_markdown(block) for block in blocks)]) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Picture(_, caption, png, _):
            source = b64encode(png).decode("ascii")
            return (
                f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{source}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        case Answers(answers):
            return "\n".join(_html_answer(answer) for answer in answers)
        case Table(header, rows):
            head = "".join(f"<th>{escape(name)}</th>" for name in header)
            lines = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
            top = f"<thead><tr>{head}</tr></thead>\n" if any(header) else ""
            return f'<div class="card"><table>\n{top}<tbody>\n{lines}\n</tbody></table></div>'


def _html_cell(cell: Cell) -> str:
    attribute = f' class="{cell.tone}"' if cell.tone else ""
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    return f"<td{attribute}>{MARKS.get(cell.tone, '')}{escape(cell.text)}{note}</td>"


def _html_answer(answer: Answer) -> str:
    items = "\n".join(
        f'<li class="{"right" if right else "wrong"}"><span>{escape(name)}</span>'
        f"<span>{score:.3f}</span></li>"
        for name, score, right in answer.labels
    )
    missed = (
        f'<div class="missed">Also true: {escape(", ".join(answer.missed))}</div>'
        if answer.missed
        else ""
    )
    text = escape(answer.text)
    return f'<div class="card"><blockquote>{text}</blockquote><ol>\n{items}\n</ol>{missed}</div>'


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Picture(file, caption, _, _):
            return f"![{_plain(caption)}]({file})"
        case Answers(answers):
            return "\n\n".join(_markdown_answer(answer) for answer in answers)
        case Table(header, rows):
            lines = [header, ("---", *("---:" for _ in header[1:]))]
            lines += [tuple(_markdown_cell(cell) for cell in row) for row in rows]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = MARKS.get(cell.tone, "") + _plain(cell.text)
    text = f"**{text}**" if cell.tone else text
    note = _plain(", ".join(cell.note.splitlines()))
    return f"{text} ({note})" if note else text


def _markdown_answer(answer: Answer) -> str:
    lines = [f"> {_plain(answer.text)}", ""]
    lines += [
        f"- {'✓' if right else '✗'} {_plain(name)} ({score:.3f})"
        for name, score, right in answer.labels
    ]
    if answer.missed:
        lines += ["", f"Also true: {_plain(', '.join(answer.missed))}"]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Keep Markdown from reading anything into a text of the user's."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return text
