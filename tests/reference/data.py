"""Slow twins of xmc_core.data: everything at once in plain lists, sets and dictionaries."""

import ast
import gzip
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

Row = tuple[str, set[str]]


def read_rows(path: Path) -> list[Row]:
    """Text and labels of each line."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if path.suffix == ".xz":
        content = lzma.decompress(content)
    lines = [json.loads(line) for line in content.decode().split("\n") if line.strip()]
    return [(line["text"], set(line["labels"])) for line in lines]


@dataclass
class Plain:
    names: list[str]
    n_labels: int
    train: list[set[str]]
    test: list[set[str]]


def number_labels(train: list[Row], test: list[Row], min_label_count: int) -> Plain:
    """Labels that train has often enough in order of their names, then the others of test."""
    everything = [label for _, labels in train for label in labels]
    known = {label for label in everything if everything.count(label) >= min_label_count}
    in_test = set().union(*(labels for _, labels in test))
    return Plain(
        sorted(known) + sorted(in_test - known),
        len(known),
        [labels & known for _, labels in train],
        [labels for _, labels in test],
    )


def calls(source: str, module: str) -> dict[str, list[str]]:
    """Function name -> imported things that it calls.

    Believable because it is simple: absolute imports at the top of the file only, no nested
    functions, no shadowed names.
    """
    tree = ast.parse(source)
    names = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            dotted = [
                ast.unparse(call.func)
                for statement in node.body
                for call in ast.walk(statement)
                if isinstance(call, ast.Call)
            ]
            found[node.name] = sorted(
                {
                    names[name.split(".")[0]] + name[len(name.split(".")[0]) :]
                    for name in dotted
                    if name.split(".")[0] in names
                }
            )
    return found
