"""What dense columns cost the rankers, as a part of docs/benchmarks.md."""

from collections.abc import Iterable
from statistics import median

from cells import Row, percent, span, verdict
from journal import METRICS

STEPS = ("components", "train")
GOAL = 1.5
ALONE = "tf-idf alone"

TEXT = """\
The rankers on tf-idf alone and on [tf-idf, embedding], one thread, in turn, each in a process of
its own: preset `linear`, one cluster a label, on eurlex-titles with what `xmc tune` chose.
Embeddings of all-MiniLM-L6-v2 as it comes (384 dimensions, 64 tokens) at some lengths
(`encoder.weight`, beside words of length 1), all dimensions or their first principal components
(`encoder.components`). CPU seconds of components, label features, tree and training: median
(smallest – largest); accuracy on the test rows, and CPU microseconds of a row predicted with the
others, of the first run."""


def dense_section(rows: list[Row]) -> Iterable[str]:
    yield from ("", "## Dense columns in the rankers", "", TEXT)
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        alone = {row["pair"]: row for row in mine if row["settings"] == ALONE}
        yield from ("", f"### {name}", "")
        yield "| | CPU s | of tf-idf alone | P@1 / 3 / 5 | PSP@5 | µs a row | model MB |"
        yield "|---|---|---|---|---|---|---|"
        yield line(ALONE, list(alone.values()), "")
        for settings in dict.fromkeys(row["settings"] for row in mine if row["settings"] != ALONE):
            joined = [row for row in mine if row["settings"] == settings]
            times = [cpu(row) / cpu(alone[row["pair"]]) for row in joined]
            reached = verdict(median(times) <= GOAL, f"{GOAL}")
            yield line(settings, joined, f"{span(times)}, {reached}")


def line(title: str, runs: list[Row], ratio: str) -> str:
    first = runs[0]
    cells = [
        title, span([cpu(run) for run in runs]), ratio, percent(first, METRICS[:3]),
        f"{first['PSP@5']:.2f}", f"{first['us_per_row']:.0f}", f"{first['model_mb']:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def cpu(run: Row) -> float:
    return float(sum(run[step]["cpu"] for step in STEPS if step in run))
