"""docs/benchmarks.md, made from the JSON files in benchmarks/results/ and from nothing else.

python benchmarks/report.py
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import plots_disentangle
import report_disentangle
import report_encoder
import sets
from cells import Row, percent, span, verdict
from journal import METRICS, RESULTS
from report_dense import dense_section

from xmc_core.reporting import number

SYNTHETIC = tuple(sets.SYNTHETIC)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the main table: a number per run, and the ratio that was the goal."""

    title: str
    task: str
    field: str
    unit: str
    goal: float
    goal_synthetic: float = 0.0


FIGURES = (
    Figure("label features and tree", "tree", "cpu", "CPU s", 2),
    Figure("the same, wall", "tree", "wall", "s", 2),
    Figure("train all levels", "train", "cpu", "CPU s", 6, 10),
    Figure("the same, wall", "train", "wall", "s", 6, 10),
    Figure("peak memory of training", "train", "peak_mb", "MB", 1 / 0.6),
    Figure("the same, less what was held before", "train", "grown_mb", "MB", 1 / 0.6),
    Figure("model on disk", "train", "model_mb", "MB", 1 / 0.7),
    Figure("batch prediction", "predict", "us_per_row", "CPU µs a row", 5),
    Figure("the same, wall of all rows", "predict", "wall", "s", 5),
    Figure("one row, median", "row", "p50_us", "µs", 10),
    Figure("one row, p99", "row", "p99_us", "µs", 0),
    Figure("tf-idf, words, 1-2-grams", "tfidf", "cpu", "CPU s", 10),
    Figure("the same, wall", "tfidf", "wall", "s", 10),
)

PAIRS_TEXT = """\
Both sides in turn, each task in a process of its own, threads pinned to as many cores; median
(smallest – largest) of the runs, ratios pair by pair, libpecos / xmc: above 1 we win. Both train
on the tree that libpecos grew, with its default settings. Peak memory is that of the whole process
while it trains: interpreter, libraries, X, Y and tree (the same on both sides), working memory and
model; the line below it counts only what training added to what the process held before. tf-idf:
the vectoriser and the training rows, from texts lower-cased and split into words beforehand, so
that all find the same terms."""


def of(rows: list[Row], task: str, side: str) -> list[Row]:
    found = [row for row in rows if row["task"] == task and row["side"] == side]
    return sorted(found, key=lambda row: row["pair"])


def ratio_line(rows: list[Row], figure: Figure, peer: str = "libpecos") -> list[str]:
    theirs, ours = of(rows, figure.task, peer), of(rows, figure.task, "xmc")
    both = list(zip(theirs, ours, strict=False))
    if not both:
        return []
    a, b = [t[figure.field] for t, _ in both], [o[figure.field] for _, o in both]
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    goal = figure.goal_synthetic if rows[0]["set"] in SYNTHETIC else 0
    goal = goal or figure.goal
    title = figure.title if peer == "libpecos" else f"{figure.title}, {peer}"
    told = verdict(median(ratios) >= goal, f"{goal:.3g}") if goal else ""
    return [
        f"| {title} | {span(a)} {figure.unit} | {span(b)} {figure.unit} | {span(ratios)} | {told} |"
    ]


def set_lines(rows: list[Row]) -> Iterable[str]:
    """All lines of one set and number of threads."""
    for figure in FIGURES:
        yield from ratio_line(rows, figure)
        if figure.task == "tfidf":
            yield from ratio_line(rows, figure, "sklearn")
        if figure.field == "p99_us":
            yield from callers_line(rows)
    theirs, ours = of(rows, "predict", "libpecos"), of(rows, "predict", "xmc")
    if theirs and ours:
        for names in (METRICS[:3], METRICS[3:]):
            apart = max(abs(theirs[0][n] - ours[0][n]) for n in names)
            told = verdict(apart <= 0.15, "0.15") if names[0] == "P@1" else ""
            scores = f"{percent(theirs[0], names)} | {percent(ours[0], names)}"
            yield f"| {' / '.join(names)} | {scores} | {apart:.2f} apart at most | {told} |"


def callers_line(rows: list[Row]) -> Iterable[str]:
    """p99 with four concurrent callers, and how many times their median it is."""
    cells, times = [], 0.0
    for side in ("libpecos", "xmc"):
        runs = of(rows, "row", side)
        if not runs:
            return
        p50, p99 = (median(r[f"p{n}_us_4_callers"] for r in runs) for n in (50, 99))
        times = median(r["p99_us_4_callers"] / r["p50_us_4_callers"] for r in runs)
        cells.append(f"{p50:,.0f} / {p99:,.0f} µs, {times:.1f} times")
    told = verdict(times <= 5, "ours 5 times at most")
    yield f"| one row, 4 callers: median / p99 | {cells[0]} | {cells[1]} | | {told} |"


def pairs_section(rows: list[Row]) -> Iterable[str]:
    yield from ("", "## Beside libpecos 1.2.8, same tree and settings", "", PAIRS_TEXT)
    for name, threads in dict.fromkeys((row["set"], row["threads"]) for row in rows):
        yield from ("", f"### {name}, {threads} thread{'s' if threads > 1 else ''}", "")
        yield "| step | libpecos | xmc | ratio | goal |"
        yield "|---|---|---|---|---|"
        yield from set_lines([r for r in rows if (r["set"], r["threads"]) == (name, threads)])


PRESET_GOALS: dict[str, dict[str, float]] = {
    "eurlex-titles": {"P@1": 92.4, "P@3": 83.6, "P@5": 72.0},
    "gutenberg-lcsh": {"P@1": 43.5, "P@3": 26.1, "P@5": 18.2, "PSP@5": 25.5},
}


def goals_of_preset(rows: list[Row]) -> Iterable[str]:
    """What the tuned preset was to reach on a set."""
    theirs = {r["task"]: r for r in rows if (r["side"], r["settings"]) == ("libpecos", "released")}
    ours = {r["task"]: r for r in rows if (r["side"], r["settings"]) == ("xmc", "tuned")}
    if not {"whole", "predict"} <= ours.keys():
        return
    told = [
        verdict(ours["predict"][name] >= goal, f"{name} {goal}")
        for name, goal in PRESET_GOALS[rows[0]["set"]].items()
    ]
    whole = ours["whole"]
    if "whole" in theirs:
        cpu, size = (whole[f] / theirs["whole"][f] for f in ("cpu", "model_mb"))
        told.append(verdict(cpu <= 1 / 5, f"CPU of `released` {cpu:.2f}, at most 1/5"))
        told.append(verdict(size <= 1 / 3, f"its model {size:.2f}, at most 1/3"))
    changes = ", ".join(f"{name} {value}" for name, value in whole["changes"].items())
    yield ""
    yield f"Goals of `tuned`: {'; '.join(told)}."
    yield f"Chosen in {whole['tuning_cpu']:.0f} CPU s: {changes or 'the preset as it is'}."


def models_section(title: str, text: str) -> Callable[[list[Row]], Iterable[str]]:
    """A table with a line per model: what training took, what it weighs, how it answers."""

    def lines(rows: list[Row]) -> Iterable[str]:
        yield from ("", f"## {title}", "", text)
        for name in dict.fromkeys(row["set"] for row in rows):
            yield from ("", f"### {name}", "")
            yield (
                "| model | P@1 / 3 / 5 | PSP@1 / 3 / 5 | train CPU s | peak MB | model MB | "
                "batch CPU µs a row | one row, median µs |"
            )
            yield "|---|---|---|---|---|---|---|---|"
            mine = [row for row in rows if row["set"] == name]
            for side, settings in dict.fromkeys((row["side"], row["settings"]) for row in mine):
                yield model_line(
                    [r for r in mine if (r["side"], r["settings"]) == (side, settings)],
                    side if settings == "alone" else f"{side}, {settings}",
                )
            yield from goals_of_preset(mine)

    return lines


def model_line(rows: list[Row], title: str) -> str:
    by_task = {row["task"]: row for row in rows}
    whole, predict, row = (by_task.get(task) for task in ("whole", "predict", "row"))
    cells = [title]
    cells += [percent(predict, METRICS[:3]), percent(predict, METRICS[3:])] if predict else ["", ""]
    cells += (
        [f"{whole['cpu']:.1f}", f"{whole['peak_mb']:,.0f}", f"{whole['model_mb']:.1f}"]
        if whole
        else ["", "", ""]
    )
    cells += [f"{predict['us_per_row']:.0f}" if predict else ""]
    cells += [f"{row['p50_us']:.0f}" if row else ""]
    return f"| {' | '.join(cells)} |"


def large_section(rows: list[Row]) -> Iterable[str]:
    yield from ("", "## Large sets", "")
    yield "`make bench-large`, a process for each step; peak memory is that of the whole process."
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        yield from ("", f"### {name}, {mine[0]['threads']} threads", "")
        yield from ("| step | wall s | CPU s | peak MB | |", "|---|---|---|---|---|")
        for row in mine:
            kept = {k: v for k, v in row["facts"].items() if not k.startswith("level_")}
            facts = ", ".join(f"{k} {number(v)}" for k, v in kept.items())
            yield (
                f"| {row['task']} | {row['wall']:,.1f} | {row['cpu']:,.1f} | {row['peak_mb']:,.0f} "
                f"| {facts} |"
            )
        limit = mine[0]["limit_mb"]
        peak = max(row["peak_mb"] for row in mine)
        yield from ("", f"Peak {peak:,.0f} MB; goal {verdict(peak < limit, f'{limit:,.0f} MB')}.")


SECTIONS: dict[str, Callable[[list[Row]], Iterable[str]]] = {
    "pairs": pairs_section,
    "presets": models_section(
        "Best settings",
        "One thread, a run each: the preset `linear`, as it is and tuned (`xmc tune` holds train\n"
        "rows out and never sees a test row), and the settings of libpecos that do best on one\n"
        "of these sets: `released` (what it ships for EUR-Lex-4K's rankers), `cost4` (positives\n"
        "count four times). Each side grows its own tree; training time includes it, not tuning.",
    ),
    "others": models_section(
        "Other peers",
        "One thread, a run each, default settings, own trees: omikuji 0.5.2 (reads a text file as\n"
        "a part of its training, and answers row by row), napkinXC 0.7.2, libpecos 1.2.8.",
    ),
    "large": large_section,
    "dense": dense_section,
    **report_encoder.SECTIONS,
    **report_disentangle.SECTIONS,
}


def origins(rows: list[Row]) -> Iterable[str]:
    """Machine and commits of a table; with the sets where these are not of one machine."""
    machines = dict.fromkeys(row["machine"] for row in rows)
    for machine in machines:
        of_it = [row for row in rows if row["machine"] == machine]
        commits = ", ".join(dict.fromkeys(row["commit"] for row in of_it))
        names = ", ".join(dict.fromkeys(row["set"] for row in of_it))
        yield f"{machine}; {f'{names}; ' if len(machines) > 1 else ''}commit {commits}"


def write() -> None:
    """Write the page and its pictures."""
    docs = sets.ROOT / "docs"
    lines: list[str] = []
    about = []
    for name, section in SECTIONS.items():
        file = RESULTS / f"{name}.json"
        rows: list[Row] = []
        if file.exists():
            rows = json.loads(file.read_text())
            about += [f"- `{file.name}`: {line}" for line in origins(rows)]
        if rows or name in report_encoder.SECTIONS:  # those tell why they are empty
            lines += section(rows)
        if name in report_disentangle.SECTIONS:
            for picture, svg in plots_disentangle.pictures(rows).items():
                (docs / "images" / f"{name}-{picture}.svg").write_bytes(svg)
    head = [
        "# Benchmarks",
        "",
        "Made by `make bench-linear`, `make bench-large`, `make bench-encoder`, `make bench-dense`",
        "and `make bench-disentangle` from the runs in `benchmarks/results`:",
        "",
        *about,
    ]
    (docs / "benchmarks.md").write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    write()
