"""Numbers as the cells of a table."""

from statistics import fmean, median, stdev
from typing import Any

Row = dict[str, Any]


def span(values: list[float]) -> str:
    digits = 0 if median(values) >= 100 else 2
    middle, *ends = (f"{x:,.{digits}f}" for x in (median(values), min(values), max(values)))
    return f"{middle} ({' – '.join(ends)})" if len(values) > 1 else middle


def verdict(reached: bool, goal: str) -> str:
    return f"{goal}: reached" if reached else f"{goal}: **not reached**"


def percent(row: Row, names: tuple[str, ...]) -> str:
    return " / ".join(f"{row[name]:.2f}" for name in names)


def spread(rows: list[Row], names: tuple[str, ...]) -> str:
    """Mean and, behind ±, standard deviation over the runs, one name after the other."""
    cells = []
    for name in names:
        values = [row[name] for row in rows]
        cells.append(f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(rows) > 1 else ""))
    return " / ".join(cells)
