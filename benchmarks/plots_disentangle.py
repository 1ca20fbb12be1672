"""Pictures of the study of labels in several clusters: against the clusters a label may have."""

from collections.abc import Callable
from io import BytesIO
from statistics import fmean, stdev

from cells import Row
from journal import METRICS
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_disentangle import GROWN, MOVED, apart, by_set, clusters_title, of, values

from xmc_core.metrics.plots import COLOURS, INK, MARKERS, STYLE

HIGHEST = 6
APART = 0.06
"""Between lines, so that the whiskers of one do not hide those of another."""

Point = tuple[float, float]
"""A value and its deviation over the seeds."""


def pictures(rows: list[Row]) -> dict[str, bytes]:
    """SVG by name; none where nothing was measured."""
    sets = by_set(of(rows, "study"))
    if not sets:
        return {}
    with style.context(["default", STYLE]):
        return {name: _svg(draw(sets)) for name, draw in DRAWINGS.items()}


def steps(rows: list[Row]) -> list[str]:
    """The variants that differ in nothing but the number of clusters, fewest first."""
    wanted = (GROWN, *(clusters_title(number) for number in range(1, HIGHEST + 1)))
    return [variant for variant in wanted if variant in rows[0]["variants"]]


def figures(sets: dict[str, list[Row]]) -> Figure:
    """P@k above, PSP@k below, a panel a set: what is gained over labels that may only move."""
    figure = Figure(figsize=(3.2 * len(sets) + 1.0, 5.8), layout="constrained")
    panels = figure.subplots(2, len(sets), squeeze=False, sharex="col")
    for row, names in enumerate((METRICS[:3], METRICS[3:])):
        for column, (title, rows) in enumerate(sets.items()):
            axes = panels[row][column]
            axes.axhline(0.0, color=INK, linewidth=1)
            for place, name in enumerate(names):

                def gain(variant: str, rows: list[Row] = rows, name: str = name) -> Point:
                    return apart(rows, variant, MOVED, name)

                _line(axes, rows, gain, place + 1, name)
            axes.grid(axis="y")
            if row == 0:
                axes.set_title(title)
            if column == 0:
                axes.set_ylabel(f"{names[0][:-2]}@k, points above {MOVED}")
                axes.legend(loc="best")
    return figure


def misses(sets: dict[str, list[Row]]) -> Figure:
    """A line a set: true labels out of the beam's reach."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for place, (title, rows) in enumerate(sets.items()):

        def missed(variant: str, rows: list[Row] = rows) -> Point:
            found = values(rows, variant, "missed")
            return fmean(found), stdev(found) if len(found) > 1 else 0.0

        _line(axes, rows, missed, place + 1, title)
    axes.set_title("True labels that a beam of 10 misses")
    axes.set_ylabel("percent")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.legend(loc="best")
    return figure


def cost(sets: dict[str, list[Row]]) -> Figure:
    """A panel a set: CPU seconds and bytes in those of labels that may only move."""
    figure = Figure(figsize=(3.2 * len(sets) + 1.0, 3.6), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    fields = {"train_cpu": "training", "predict_cpu": "test rows", "model_bytes": "model"}
    for axes, (title, rows) in zip(panels, sets.items(), strict=True):
        axes.axhline(1.0, color=INK, linewidth=1)
        for place, (field, name) in enumerate(fields.items()):

            def times(variant: str, rows: list[Row] = rows, field: str = field) -> Point:
                both = zip(values(rows, variant, field), values(rows, MOVED, field), strict=True)
                found = [a / b for a, b in both]
                return fmean(found), stdev(found) if len(found) > 1 else 0.0

            _line(axes, rows, times, place + 1, name)
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    panels[0].set_ylabel(f"times those of {MOVED}")
    panels[0].legend(loc="best")
    return figure


def _line(
    axes: Axes, rows: list[Row], value: Callable[[str], Point], place: int, label: str
) -> None:
    variants = steps(rows)
    points = [value(variant) for variant in variants]
    axes.errorbar(
        [step + APART * (place - 2) for step in range(len(variants))],
        [middle for middle, _ in points],
        yerr=[deviation for _, deviation in points],
        color=COLOURS[place],
        marker=MARKERS[place],
        markersize=5,
        linewidth=2,
        elinewidth=1,
        capsize=2,
        label=label,
    )
    axes.set_xticks(range(len(variants)), [v.replace(GROWN, "grown") for v in variants])


def _svg(figure: Figure) -> bytes:
    drawn = BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


DRAWINGS = {"figures": figures, "misses": misses, "cost": cost}
