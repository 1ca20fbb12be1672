"""The pictures of the evaluation report, each as PNG and as SVG.

Figures are drawn straight on matplotlib's Agg canvas: no window system, no global state, no style
file of the user's, no clock in the file, so equal figures give equal bytes on one machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xmc_core.metrics.bootstrap import Interval
from xmc_core.metrics.reliability import Reliability
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
    "svg.hashsalt": "xmc",  # ids in the file: the same every time
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture, twice."""

    png: bytes
    svg: bytes


def metric_bars(intervals: Mapping[str, Mapping[str, Interval]]) -> Drawing:
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
        highest = max(i.high for model in intervals.values() for i in model.values())
        axes.set_ylim(0, 1.1 * highest or 1.0)
        _legend(figure, len(titles))
        return _drawn(figure)


def recall_by_decile(slices: Mapping[str, Sequence[Slice]], k: int) -> Drawing:
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
        return _drawn(figure)


def recall_by_beam(recalls: Mapping[str, Mapping[int, Mapping[int, float]]]) -> Drawing:
    """How many of a row's labels lie within reach, by title, level of the tree and beam size: a
    panel a level, the clusters' last, and a line a tree."""
    levels = sorted({level for points in recalls.values() for level in points})
    sizes = sorted({size for own in recalls.values() for points in own.values() for size in points})
    every = [v for own in recalls.values() for points in own.values() for v in points.values()]
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
        for axes, level in zip(panels, levels, strict=True):
            first, last = axes is panels[0], axes is panels[-1]
            _dress(axes, "What the matcher reaches" if first else "", "")
            place = f"level {level}, the clusters" if last else f"level {level} of the tree"
            axes.set_xlabel(f"{place}: nodes kept by the beam")
            for number, (title, own) in enumerate(recalls.items()):
                points = own.get(level, {})
                axes.plot(
                    [sizes.index(size) for size in points],
                    list(points.values()),
                    color=COLOURS[number],
                    marker=MARKERS[number],
                    markersize=5,
                    linewidth=2,
                    label=title if first else None,
                )
                # Only the ends in figures: the lines of two trees lie close to each other.
                for size in (min(points), max(points)) if points and last else ():
                    above = number == len(recalls) - 1  # the last line is expected on top
                    axes.annotate(
                        f"{points[size]:.1f}",
                        (sizes.index(size), points[size]),
                        xytext=(0, 8 if above else -15),
                        textcoords="offset points",
                        ha="center",
                        fontsize=8,
                        color=FAINT,
                    )
            axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
            axes.set_xlim(-0.4, len(sizes) - 0.6)
        panels[0].set_ylabel("labels within the beam, percent")
        lowest = min(every, default=0.0)
        panels[0].set_ylim(max(0.0, lowest - 0.25 * (100.0 - lowest) - 2.0), 102)
        _legend(figure, 3)
        return _drawn(figure)


def reliability_diagram(
    curves: Mapping[str, Reliability], operating: Mapping[str, Doubles], k: int
) -> Drawing:
    """Left: how often labels are right by their probability, a line an entry of `curves`. Right:
    what remains above a score: percent, in (n,) arrays "score" (0 to 1), "precision", "recall",
    "answered". Without curves, a picture that says why."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        if not curves:
            return _note(figure, "Scores are no probabilities: calibration.method is none.")
        left, right = figure.subplots(1, 2)
        _dress(left, "Are probabilities right?", "labels that are right, percent")
        left.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for place, (title, bins) in enumerate(curves.items(), start=1):
            left.errorbar(
                bins.confidence,
                bins.hits,
                yerr=np.maximum([bins.hits - bins.low, bins.high - bins.hits], 0.0),
                color=COLOURS[place],
                marker=MARKERS[place],
                markersize=5,
                linewidth=2,
                elinewidth=1,
                capsize=2,
                label=f"{title}: off by {bins.error:.1f} points",
            )
        left.set_xlabel("probability given, percent")
        left.set_xlim(0, 100)
        left.set_ylim(0, 100)
        left.legend(loc="upper left")
        _dress(right, "Labels above a threshold", "percent")
        for place, name in enumerate(("precision", "recall", "answered"), start=1):
            label = {"answered": "documents with an answer"}.get(name, name)
            right.plot(
                100.0 * operating["score"], operating[name], color=COLOURS[place], label=label,
                linewidth=2, linestyle=("-", "--", ":")[place - 1],
            )  # fmt: skip
        right.set_xlabel(f"least probability, percent; test split, {k} best labels")
        right.set_xlim(0, 100)
        right.set_ylim(0, 102)
        handles, names = right.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower right", ncols=3)
        return _drawn(figure)


def learning_curve(points: Sequence[Mapping[str, float]]) -> Drawing:
    """Loss over the steps of all levels in a row, a colour a level; the learning rate below.

    An ensemble's members follow one another."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        if not points:
            return _note(figure, "No learning curve: no encoder was fine-tuned.")
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
        return _drawn(figure)


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


def _note(figure: Figure, text: str) -> Drawing:
    """A picture of a sentence, where there is nothing to draw."""
    figure.text(0.5, 0.5, text, ha="center", va="center", color=FAINT)
    return _drawn(figure)


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


def _drawn(figure: Figure) -> Drawing:
    FigureCanvasAgg(figure)
    png, svg = BytesIO(), BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(png.getvalue(), svg.getvalue())
