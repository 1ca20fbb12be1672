"""All commands, and what becomes of their errors.

Modules of commands import nothing but typer and the errors; numpy, numba and torch come with the
command that needs them, so that `xmc --help` answers at once.
"""

import errno
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xmc_core import __version__
from xmc_core.cli import data, doctor, evaluation, pipeline, prediction, tree, tune, warmup
from xmc_core.errors import XmcError

WAYS_OUT = {
    errno.ENOSPC: "free some space and run the command again; nothing was left half written",
    errno.EDQUOT: "free some of your quota and run it again; nothing was left half written",
    errno.EFBIG: "the limit on file sizes is too low (ulimit -f); nothing was left half written",
    errno.EACCES: "you may not do that there; look at the permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
}


class Commands(TyperGroup):
    """Turns what the user can mend into one red line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (XmcError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise  # a reader that has read enough, as `head`, is nobody's fault
            typer.secho(f"Error: {explain(error)}", fg=typer.colors.RED, err=True)
            raise typer.Exit(2) from None


def explain(error: XmcError | OSError) -> str:
    """The error in one line, with a way out."""
    if isinstance(error, XmcError):
        return str(error)
    what = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    way_out = WAYS_OUT.get(error.errno or 0)
    return f"{where}{what}; {way_out}." if way_out else f"{where}{what}."


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xmc {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="xmc",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Extreme multi-label classification: texts in, labels out of thousands to millions.",
    epilog="Everything else: README.md. What a parameter means: xmc_core/config.py.",
)
app.add_typer(data.app, name="data", rich_help_panel="Data")
app.command(rich_help_panel="Pipeline")(pipeline.run)
app.command(rich_help_panel="Pipeline")(pipeline.train)
app.command(rich_help_panel="Pipeline")(tune.tune)
app.command(rich_help_panel="Models")(prediction.predict)
app.command(rich_help_panel="Models")(evaluation.evaluate)
app.command(rich_help_panel="Models")(evaluation.compare)
app.command(rich_help_panel="Models")(evaluation.threshold)
app.add_typer(tree.app, name="tree", rich_help_panel="Models")
app.command(rich_help_panel="This machine")(doctor.doctor)
app.command(rich_help_panel="This machine")(warmup.warmup)


@app.callback()
def root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error comes from.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and stop.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Entry of every command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """What the `xmc` command calls. Exit code 1: something is broken; 2: the user can mend it."""
    app(args=list(arguments) if arguments is not None else sys.argv[1:], prog_name="xmc")
