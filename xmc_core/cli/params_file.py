"""Adding a data set to params.yaml, or changing its settings, without disturbing what people wrote.

The file is edited as text: a YAML library would lose comments or re-flow lines. Afterwards the
result is read as YAML and compared with what was there plus the change; if that is not what came
out, nothing is written and the user is told what to write.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from xmc_core.config import read_params
from xmc_core.errors import ConfigError
from xmc_core.persistence.locks import locked

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MERGE = "<<"
LOCK = Path(".xmc") / "params.lock"


def check_name(name: str) -> None:
    """A data set's name is a folder, a DVC stage id, a Dagster partition and a YAML key."""
    if not NAME.fullmatch(name) or not isinstance(yaml.safe_load(name), str) or _is_number(name):
        raise ConfigError(
            f"{name!r} cannot be a data set's name: use letters, digits, - and _, starting with a "
            "letter or digit, and nothing that YAML takes for a number or a truth value."
        )


def _is_number(name: str) -> bool:
    """`1e5` is text to PyYAML, which reads YAML 1.1, and a number to DVC, which reads 1.2."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def others_wait(params: Path) -> AbstractContextManager[None]:
    """Keep other commands from changing params.yaml between reading it and writing it back."""
    return locked(params.parent / LOCK)


def read_text(params: Path) -> str:
    """The text of params.yaml; ConfigError if it is not what read_params can read."""
    read_params(params)
    return params.read_text(encoding="utf-8")


def has_dataset(text: str, name: str) -> bool:
    """Is it listed, or does it have settings?"""
    params = yaml.safe_load(text) or {}
    return name in (params.get("datasets") or []) or name in (params.get("settings") or {})


def add_dataset(text: str, name: str, preset: str) -> str:
    """The text of params.yaml with `name` listed, and with the settings of `preset` unless it has
    settings already.

    Raises ConfigError if there is no such preset, or the file is written in a way that cannot be
    extended safely.
    """
    before: dict[str, Any] = yaml.safe_load(text) or {}
    listed = before.get("datasets") or []
    present = before.get("settings") or {}
    presets = before.get("presets") or {}
    if name not in present and preset not in presets:
        raise ConfigError(
            f"params.yaml has no presets.{preset}; it knows {', '.join(presets) or 'none'}."
        )
    anchor = re.search(rf"^\s+{re.escape(preset)}:\s*&(\S+)", text, re.MULTILINE)
    settings = [
        f"{name}:",
        f"  <<: *{anchor[1] if anchor else preset}",
        "  dataset: {source: files}",
    ]

    after, wanted = text, dict(before)
    if name not in listed:
        after = _extended(after, "datasets", [f"- {name}"], before.get("datasets"))
        wanted["datasets"] = [*listed, name]
    if name not in present:
        after = _extended(after, "settings", settings, before.get("settings"))
        own = {**presets[preset], "dataset": {"source": "files"}}
        wanted["settings"] = {**present, name: own}
    try:
        found = yaml.safe_load(after)
    except yaml.YAMLError:
        found = None
    if found != wanted:
        raise ConfigError(
            "params.yaml is written in a way that cannot be extended safely; add these lines "
            f"yourself: `- {name}` under `datasets:`, and `{name}: {{<<: *{preset}, dataset: "
            "{source: files}}` under `settings:`."
        )
    return after


def set_parameters(text: str, name: str, changes: Mapping[str, Any]) -> str:
    """The text of params.yaml with parameters of a data set changed: {"rankers.tail": 0.1}.

    A section that the data set takes from its preset is written out in its own settings, one line
    a section. Raises ConfigError if the file is written in a way that cannot be changed safely.
    """
    before: dict[str, Any] = yaml.safe_load(text) or {}
    own = (before.get("settings") or {}).get(name) or {}
    sections: dict[str, dict[str, Any]] = {}
    for parameter, value in changes.items():
        section, _, last = parameter.partition(".")
        sections.setdefault(section, dict(own.get(section) or {}))[last] = value

    lines = text.splitlines()
    for section, values in sections.items():
        flow = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10**6)
        _put_section(lines, name, section, flow.strip())
    after = "\n".join(lines) + "\n"
    wanted = {**before, "settings": {**before["settings"], name: {**own, **sections}}}
    try:
        found = yaml.safe_load(after)
    except yaml.YAMLError:
        found = None
    if found != wanted:
        listed = ", ".join(f"{parameter}: {value}" for parameter, value in changes.items())
        raise ConfigError(
            "params.yaml is written in a way that cannot be changed safely; set these under "
            f"settings.{name} yourself: {listed}."
        )
    return after


def _put_section(lines: list[str], name: str, section: str, flow: str) -> None:
    """Replace the line of a data set's section, or add it behind the data set's last line."""
    settings = next((n for n, line in enumerate(lines) if re.match(r"settings\s*:", line)), -1)
    start = next(
        (
            n
            for n, line in enumerate(lines)
            if n > settings and re.match(rf"\s+{re.escape(name)}\s*:\s*(#.*)?$", line)
        ),
        None,
    )
    if settings < 0 or start is None:
        return  # what comes out is then not what was wanted
    outer = len(_indent([lines[start]]))
    last = start
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if len(_indent([line])) <= outer:
            break
        last = number
    indent = _indent(lines[start + 1 : last + 1]) if last > start else " " * (outer + 2)
    new = f"{indent}{section}: {flow}"
    for number in range(start + 1, last + 1):
        if re.match(rf"{indent}{re.escape(section)}\s*:", lines[number]):
            if re.search(r":\s*\{.*\}\s*(#.*)?$", lines[number]):
                lines[number] = new
            return  # spread over several lines: left as it is
    lines.insert(last + 1, new)


def preset_of(text: str, name: str) -> str | None:
    """The preset that a data set's settings start from, if it names one by `<<: *preset`."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    presets = _entries(_entries(root).get("presets"))
    own = _entries(_entries(_entries(root).get("settings")).get(name))
    # An alias is the very node that it refers to.
    return next((p for p, node in presets.items() if node is own.get(MERGE)), None)


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value}


def _extended(text: str, key: str, addition: list[str], present: Any) -> str:
    """Append lines to the block under a top-level key."""
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if re.match(rf"{key}\s*:", line)), None)
    if start is None:
        lines += ["", f"{key}:"]
        start = len(lines) - 1
    head, _, inline = lines[start].partition(":")
    inline, _, comment = inline.partition("#")
    if inline.strip() in ("[]", "{}", "null", "~"):
        lines[start] = f"{head}:" + (f" #{comment}" if comment else "")
    elif inline.strip().startswith("[") and inline.strip().endswith("]") and addition[1:] == []:
        items = [*inline.strip()[1:-1].split(","), addition[0].removeprefix("- ")]
        flow = ", ".join(item.strip() for item in items)
        lines[start] = f"{head}: [{flow}]" + (f" #{comment}" if comment else "")
        return "\n".join(lines) + "\n"

    last = start
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if re.match(r"[^\s#-]|---", line):  # the next key; a list may stand at the margin
            break
        if line.strip() and not line.startswith("#"):
            last = number
    indent = _indent(lines[start + 1 : last + 1]) if present else "  "
    lines[last + 1 : last + 1] = [f"{indent}{line}" for line in addition]
    return "\n".join(lines) + "\n"


def _indent(block: list[str]) -> str:
    """That of the first entry."""
    first = next(
        (line for line in block if line.strip() and not line.lstrip().startswith("#")), "  "
    )
    return first[: len(first) - len(first.lstrip())]
