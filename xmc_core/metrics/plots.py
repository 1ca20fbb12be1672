"""The pictures of the evaluation report, as PNG bytes.

Figures are drawn straight on matplotlib's Agg canvas: no window system, no global state, no style
file of the user's, no clock in the file, so equal figures give equal bytes on one machine.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xmc_core.metrics.bootstrap import Interval
from xmc_core.metrics.slices import Slice
from xmc_core.types import Doubles

COLOURS = ("#9aa7b5", "#3a78c9", "#e0752d", "#3f9b6c", "#8a63b5")
"""By place; told apart by colour-blind readers and on a grey printer."""

MARKERS = ("o", "s", "D", "^", "v")
INK, FAINT, GRID = "#26323f", "#66727f", "#e3e7ec"
DPI = 150

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has it
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def metric_bars(intervals: Mapping[str, Mapping[str, Interval]]) -> bytes:
    """One group of bars a metric, one bar a model; whiskers are the confidence intervals."""
    titles = list(intervals)
    metrics = list(intervals[titles[0]])
    width = 0.8 / len(titles)
    with style.context(["default", STYLE]):
        figure, axes = _axes("Three models side by side", "percent")
        for place, title in enumerate(titles):
            values = np.array([[i.low, i.value, i.high] for i in intervals[title].values()])
            x = np.arange(len(metrics)) + (place - (len(titles) - 1) / 2) * width
            low, value, high = values.T
            axes.bar(x, value, width * 0.92, color=COLOURS[place], label=title)
            axes.errorbar(
                x,
                value,
                yerr=np.maximum([value - low, high - value], 0.0),
                fmt="none",
                ecolor=INK,
                elinewidth=1,
                capsize=2,
            )
            for at, height, top in zip(x, value, high, strict=True):
                axes.annotate(
                    f"{height:.1f}",
                    (at, top),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                    color=FAINT,
                )
        axes.set_xticks(np.arange(len(metrics)), metrics, color=INK)
        axes.set_ylim(0, max(i.high for model in intervals.values() for i in model.values()) * 1.1)
        _legend(figure, len(titles))
        return _png(figure)


def recall_by_decile(slices: Mapping[str, Sequence[Slice]], k: int) -> bytes:
    """A line a model over the frequency deciles; behind it, where the test split's labels lie."""
    with style.context(["default", STYLE]):
        figure, axes = _axes(f"Recall@{k} by frequency of the label", "recall, percent")
        rows = next(iter(slices.values()))
        deciles = [row.decile for row in rows]
        positives = np.array([row.test_positives for row in rows], np.float64)
        share = 100.0 * positives / max(positives.sum(), 1.0)
        axes.bar(deciles, share, 0.7, color=GRID, label="share of the test split's labels")
        for place, (title, own) in enumerate(slices.items()):
            axes.plot(
                [row.decile for row in own],
                [row.recall for row in own],
                color=COLOURS[place],
                marker=MARKERS[place],
                markersize=5,
                linewidth=2,
                label=title,
            )
        axes.set_xticks(deciles, [_decile_name(decile) for decile in deciles])
        axes.set_xlabel("tenths of the training labels, by frequency")
        axes.set_ylim(0, 105)
        _legend(figure, 2)
        return _png(figure)


def recall_by_beam(recalls: Mapping[str, Mapping[int, float]]) -> bytes:
    """How many of a row's labels lie within reach, a line a tree."""
    with style.context(["default", STYLE]):
        figure, axes = _axes("What the matcher reaches", "labels within the beam, percent")
        sizes = sorted({size for points in recalls.values() for size in points})
        lowest = 100.0
        for place, (title, points) in enumerate(recalls.items()):
            x = [sizes.index(size) for size in points]
            values = list(points.values())
            lowest = min(lowest, *values)
            axes.plot(
                x,
                values,
                color=COLOURS[place],
                marker=MARKERS[place],
                linewidth=2,
                label=title,
            )
            above = place == len(recalls) - 1  # the last line is expected on top
            for at, value in zip(x, values, strict=True):
                axes.annotate(
                    f"{value:.1f}",
                    (at, value),
                    xytext=(0, 8 if above else -15),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=FAINT,
                )
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlabel("beam size: clusters kept at each level")
        axes.set_xlim(-0.3, len(sizes) - 0.7)
        axes.set_ylim(max(0.0, lowest - 0.25 * (100.0 - lowest) - 2.0), 102)
        _legend(figure, 2)
        return _png(figure)


def learning_curve(points: Sequence[Mapping[str, float]]) -> bytes:
    """Loss over the steps of all levels in a row, a colour a level; the learning rate below.

    An ensemble's members follow one another."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        if not points:
            figure.text(
                0.5,
                0.5,
                "No learning curve: no encoder was fine-tuned.",
                ha="center",
                va="center",
                color=FAINT,
            )
            return _png(figure)
        loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _dress(loss_axes, "Fine-tuning, coarse to fine", "loss")
        _dress(rate_axes, "", "learning rate")
        offset = 0.0
        parts = dict.fromkeys((point.get("member"), point["level"]) for point in points)
        for place, (member, level) in enumerate(parts):
            own = [p for p in points if (p.get("member"), p["level"]) == (member, level)]
            steps = np.array([point["step"] for point in own])
            if place and steps[0] <= offset:
                steps = (
                    steps + offset
                )  # each level counts its own steps: put them one after another
            colour = COLOURS[(place + 1) % len(COLOURS)]
            loss = np.array([point["loss"] for point in own])
            loss_axes.plot(steps, loss, color=colour, alpha=0.3, linewidth=1)
            label = f"level {level:.0f}"
            if member is not None:
                label = f"member {member:.0f}, {label}"
            loss_axes.plot(steps, _smooth(loss), color=colour, linewidth=2, label=label)
            rate_axes.plot(steps, [point["learning_rate"] for point in own], color=colour)
            offset = float(steps[-1])
        loss_axes.set_ylim(bottom=0)
        rate_axes.set_ylim(bottom=0)
        highest = max(point["learning_rate"] for point in points)
        rate_axes.set_yticks([0.0, highest], ["0", f"{highest:.2g}"])
        rate_axes.set_xlabel("optimiser step")
        loss_axes.legend(loc="upper right")
        return _png(figure)


def _axes(title: str, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    _dress(axes, title, label)
    return figure, axes


def _dress(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_ylabel(label)
    axes.grid(axis="y")


def _legend(figure: Figure, columns: int) -> None:
    """Below the axes, where it can cover nothing."""
    figure.legend(loc="outside lower center", ncols=columns)


def _decile_name(decile: int) -> str:
    return {1: "1\nmost frequent", 10: "10\nrarest"}.get(decile, str(decile))


def _smooth(values: Doubles) -> Doubles:
    """Mean over a tenth of the steps around each one, so that a trend shows through the batches."""
    reach = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    steps = np.arange(len(values))
    starts, ends = np.maximum(steps - reach, 0), np.minimum(steps + reach + 1, len(values))
    means: Doubles = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
