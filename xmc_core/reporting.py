"""How a stage tells what it is doing: one small reporter, three readers.

Whoever watches gets JSON lines: the file named by the environment variable XMC_EVENTS, appended
to while the stage runs (Dagster and MLflow follow it live). Whoever sits at a terminal gets a line
a step on standard error. Tests read `Recorder.events`.

An event is one object: {"event": ..., "stage": ..., "dataset": ..., "time": seconds since 1970}
and, by kind,

- started
- progress: done, total, unit, seconds (since the stage began), left (estimated seconds, or null)
- message: text
- metrics: values {name: number}; what the stage has to say about its result
- curve: step, values {name: number}; a point of a learning curve
- finished: seconds, peak_memory_mb
- failed: error (one line for the user)
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from xmc_core.types import Json

EVENTS_VARIABLE = "XMC_EVENTS"
PROGRESS_SECONDS = 2.0
"""Progress is told at most this often."""

Item = TypeVar("Item")


class Reporter:
    """Base: swallows everything, so that library functions need not ask whether there is one."""

    def emit(self, event: str, **values: Any) -> None:
        """Hand one event on."""

    def message(self, text: str) -> None:
        """Say one line."""
        self.emit("message", text=text)

    def metrics(self, **values: float) -> None:
        """State facts about the result: rows, features, P@1 ..."""
        self.emit("metrics", values=_plain(values))

    def curve(self, step: int, **values: float) -> None:
        """Add a point to a learning curve."""
        self.emit("curve", step=step, values=_plain(values))

    def track(self, items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
        """Yield `items` and tell every few seconds how many of `total` are done."""
        started = last = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - last >= PROGRESS_SECONDS:
                last = now
                self.progress(done, total, unit, now - started)
            yield item

    def progress(
        self, done: int, total: int, unit: str, seconds: float, left: float | None = None
    ) -> None:
        """Tell how far a loop is, `seconds` after it began, and for how long it will go on:
        `left` seconds, or as the average of what is done says."""
        if left is None and done:
            left = seconds / done * (total - done)
        self.emit("progress", done=done, total=total, unit=unit, seconds=seconds, left=left)


SILENT = Reporter()


class SharedProgress:
    """Progress of work that several threads take from one queue, in percent of its cost."""

    def __init__(self, report: Reporter, cost: float, unit: str) -> None:
        self._report = report
        self._cost = cost
        self._unit = unit
        self._done = 0.0
        self._began = self._last = time.monotonic()
        self._lock = threading.Lock()

    def add(self, cost: float) -> None:
        """Work of this cost is done; told every few seconds."""
        with self._lock:
            self._done += cost
            now = time.monotonic()
            if now - self._last >= PROGRESS_SECONDS:
                self._last = now
                percent = round(100 * self._done / self._cost)
                self._report.progress(percent, 100, self._unit, now - self._began)


class Recorder(Reporter):
    """Keeps all events in memory."""

    def __init__(self) -> None:
        self.events: list[Json] = []

    def emit(self, event: str, **values: Any) -> None:
        self.events.append({"event": event, **values})


class MemberReporter(Reporter):
    """Hands on what one member of an ensemble tells, under its name: `member_2_loss`."""

    def __init__(self, report: Reporter, number: int) -> None:
        self._report = report
        self._number = number

    def emit(self, event: str, **values: Any) -> None:
        if event == "message":
            values["text"] = f"member {self._number}: {values['text']}"
        if event in ("metrics", "curve"):
            own = values["values"].items()
            values["values"] = {f"member_{self._number}_{name}": value for name, value in own}
        self._report.emit(event, **values)


class TerminalReporter(Reporter):
    """A line an event on standard error; on a terminal, progress is a bar that moves in place."""

    def __init__(self, title: str = "") -> None:
        self.title = f"{title:>18}  " if title else ""
        self._moving = False

    def emit(self, event: str, **values: Any) -> None:
        self.show({"event": event, **values})

    def show(self, event: Json) -> None:
        """Print what `event` says, if it says anything."""
        if not (text := describe(event)):
            return
        in_place = event["event"] == "progress" and sys.stderr.isatty()
        self.close()
        if in_place:
            print(f"{self.title}{bar(event)} {text}", end="", file=sys.stderr, flush=True)
            self._moving = True
        else:
            print(f"{self.title}{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Wipe the bar away, if there is one."""
        if self._moving:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self._moving = False


class StageReporter(TerminalReporter):
    """Writes JSON lines for programs and short lines for people."""

    def __init__(self, stage: str, dataset: str, *, quiet: bool = False) -> None:
        super().__init__(stage)
        self.stage = stage
        self.dataset = dataset
        self.quiet = quiet
        self.facts: dict[str, float] = {}
        self._began = time.monotonic()
        self._file = Path(path) if (path := os.environ.get(EVENTS_VARIABLE)) else None

    def emit(self, event: str, **values: Any) -> None:
        if event == "metrics":
            self.facts.update(values["values"])
        line = {
            "event": event,
            "stage": self.stage,
            "dataset": self.dataset,
            "time": time.time(),
            **values,
        }
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if event == "failed":
            self.close()  # the error itself travels on, and whoever catches it says so
        elif not self.quiet:
            self.show(line)

    def finished(self) -> None:
        self.emit(
            "finished", seconds=time.monotonic() - self._began, peak_memory_mb=peak_memory_mb()
        )


def _plain(values: Mapping[str, Any]) -> dict[str, float]:
    """numpy's numbers as Python's own, which JSON can hold."""
    return {n: v.item() if hasattr(v, "item") else v for n, v in values.items()}


def bar(event: Json, width: int = 24) -> str:
    """
    >>> bar({"done": 1, "total": 4}, width=8)
    '━━──────'
    """
    full: int = round(width * min(1.0, event["done"] / max(1, event["total"])))
    return "━" * full + "─" * (width - full)


def describe(event: Json) -> str:
    """One line for people, or nothing."""
    kind = event["event"]
    if kind == "message":
        return str(event["text"])
    if kind == "progress":
        left = f", {duration(event['left'])} left" if event["left"] is not None else ""
        return f"{event['done']:,} of {event['total']:,} {event['unit']}{left}"
    if kind == "metrics":
        return ", ".join(f"{name} {number(value)}" for name, value in event["values"].items())
    if kind == "curve":
        points = ", ".join(f"{name} {number(value)}" for name, value in event["values"].items())
        return f"step {event['step']:,}: {points}"
    if kind == "finished":
        return (
            f"done in {duration(event['seconds'])}, peak memory {event['peak_memory_mb']:,.0f} MB"
        )
    if kind == "failed":
        return f"failed: {event['error']}"
    return ""


def duration(seconds: float) -> str:
    """
    >>> duration(4.21), duration(75), duration(7260)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """
    >>> number(12345), number(0.12345), number(71.5)
    ('12,345', '0.1235', '71.5')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
