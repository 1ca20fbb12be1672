"""The command line: `xmc ...`."""

from xmc_core.cli.app import app, main

__all__ = ["app", "main"]
