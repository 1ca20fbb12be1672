"""What a command shows while it works."""

from typing import Any

from xmc_core.reporting import TerminalReporter


class CommandReporter(TerminalReporter):
    """Bars and messages; facts are left to the table that the command ends with."""

    def metrics(self, **values: float) -> None:
        pass

    def __enter__(self) -> "CommandReporter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
