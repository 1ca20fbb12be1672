"""One stage as a subprocess, followed while it runs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from xmc_core.reporting import EVENTS_VARIABLE

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""Between asking a stage to stop and killing it."""

BUSY = "is busy, it is being blocked by"
"""What DVC says, and fails, where another command, perhaps in a terminal, is at the same files."""

BUSY_SECONDS = 3600.0
"""For so long it is tried again."""

BUSY_POLL_SECONDS = 15.0

LAST_LINES = 25
"""Of what a failed stage has printed: enough for the end of a traceback."""

CHATTER = (
    "To track the changes with git",
    "git add ",
    "To enable auto staging",
    "dvc config core.",
    "Use `dvc push`",
)
"""What DVC advises after every stage."""


class StageError(Exception):
    """A stage ended with an error; the message holds its own words."""

    def __init__(self, message: str, *, explained: bool) -> None:
        super().__init__(message)
        self.explained = explained
        """The stage said why, or DVC why it did not start it. Where neither could (killed, out of
        memory), a second try may succeed."""


class StageRun:
    """A started stage. Iterate `events()` to the end, then ask for `reused` and the rest.

    No thread is involved: the stage writes its events and its output to two files, and whoever
    iterates reads them as they grow. The output is repeated on standard error, which Dagster keeps
    as the step's compute log.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = environment
        self.seconds = 0.0
        self.peak_memory_mb: float | None = None
        self.started = False
        self.error: str | None = None
        """The stage's own one-line error."""

        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def reused(self) -> bool:
        """DVC found nothing to do, or restored the result from its cache: the stage never began."""
        return not self.started

    def events(self) -> Generator[dict[str, Any], None, None]:
        """Yield the stage's events (see xmc_core.reporting) as they happen.

        Raises StageError at the end if the stage failed. Where DVC is busy with the same files, the
        stage waits, and says so. When the caller stops early, or is interrupted, the stage is
        stopped too.
        """
        until = time.monotonic() + BUSY_SECONDS
        told = False
        while (code := (yield from self._once())) != 0:
            if self.started or not self._busy() or time.monotonic() > until:
                explained = self.error is not None or not self.started
                raise StageError(self._failure(code), explained=explained)
            if not told:
                lines = [f"{self.name} waits until DVC is free:", *self.last_lines]
                yield {"event": "message", "text": "\n".join(lines)}
                told = True
            self.last_lines.clear()
            time.sleep(BUSY_POLL_SECONDS)

    def _once(self) -> Generator[dict[str, Any], None, int]:
        """Run the command; its exit code."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="xmc-run-") as scratch:
            events_file, output_file = Path(scratch) / "events.jsonl", Path(scratch) / "output.txt"
            events_file.touch()
            with output_file.open("wb") as output:
                process = subprocess.Popen(
                    self.command,
                    cwd=self.folder,
                    # Unbuffered, or what DVC says would come after what the stage says.
                    env={
                        **self.environment,
                        "PYTHONUNBUFFERED": "1",
                        EVENTS_VARIABLE: str(events_file),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group of its own, so that all of it can be stopped
                )
            try:
                with (
                    events_file.open(encoding="utf-8") as told,
                    output_file.open(encoding="utf-8", errors="replace") as printed,
                ):
                    running = True
                    while running:
                        running = _still_running(process)
                        self._repeat(printed)
                        for line in _complete_lines(told):
                            event = json.loads(line)
                            self._take(event)
                            yield event
            finally:
                _stop(process)
                self.seconds = time.monotonic() - began
        return process.returncode

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "started":
            self.started = True
        elif event["event"] == "finished":
            self.peak_memory_mb = float(event["peak_memory_mb"])
        elif event["event"] == "failed":
            self.error = str(event["error"])

    def _repeat(self, printed: TextIO) -> None:
        for line in _complete_lines(printed):
            if line.strip() and not line.strip().startswith(CHATTER):
                self.last_lines.append(line.rstrip())
                sys.stderr.write(line)

    def _busy(self) -> bool:
        return any(BUSY in line for line in self.last_lines)

    def _failure(self, code: int) -> str:
        by_dvc = [line for line in self.last_lines if line.startswith("ERROR: ")]
        silent = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        reason = self.error or (by_dvc[-1].removeprefix("ERROR: ") if by_dvc else silent)
        return "\n".join([f"{self.name}: {reason}", "", "Its last lines:", *self.last_lines])


def _still_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _complete_lines(file: TextIO) -> Iterator[str]:
    """Lines written since the last look; one that is still being written waits for the next."""
    while True:
        position = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(position)
            return
        yield line


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, sign)
            process.wait(GRACE_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
