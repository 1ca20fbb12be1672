"""What `make demo` says of a run."""

import io

import dagster as dg
from rich.console import Console

from orchestration.demo import Lines
from xmc_core.errors import ConfigError


@dg.asset
def broken():
    try:
        {}["preset"]
    except KeyError as error:
        raise ConfigError("params.yaml names no preset; add one.") from error


def test_a_failure_is_told_in_the_words_of_what_was_raised(instance):
    outcome = dg.materialize([broken], instance=instance, raise_on_error=False)
    lines = Lines(Console(file=io.StringIO()), ["broken"])
    for event in outcome.all_events:
        lines.event(event)
    assert lines.failure is not None
    assert "params.yaml names no preset; add one." in lines.failure
