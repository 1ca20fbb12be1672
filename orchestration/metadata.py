"""From facts to what each UI accepts."""

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name.

    >>> flat({"tree": {"branching": 16}, "seed": 0})
    {'tree.branching': 16, 'seed': 0}
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result


def tags(values: Mapping[str, str | None]) -> dict[str, str]:
    """Dagster tags: at most 63 letters, digits, `_`, `-` and `.`; what is None is left out.

    >>> tags({"dvc/stage": "rankers@python-api", "dvc/md5": None})
    {'dvc/stage': 'rankers-python-api'}
    """
    return {
        name: re.sub(r"[^A-Za-z0-9_.-]", "-", value)[:63]
        for name, value in values.items()
        if value is not None
    }


def numbers(facts: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """Facts as metadata that Dagster plots over time: the same key and type in every run."""
    return {
        name: dg.MetadataValue.int(value)
        if isinstance(value, int)
        else dg.MetadataValue.float(value)
        for name, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def table(rows: Mapping[str, Mapping[str, float]], columns: list[str]) -> str:
    """Markdown: a row per model, a column per metric.

    >>> print(table({"xr_linear": {"P@1": 71.5}}, ["P@1"]))
    | | P@1 |
    |---|---:|
    | xr_linear | 71.50 |
    """
    head = f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}"
    body = [
        f"| {name} | {' | '.join(f'{values[c]:.2f}' if c in values else '' for c in columns)} |"
        for name, values in rows.items()
    ]
    return "\n".join([head, *body])
