"""What the functions of one Python file are about and what they call, found by parsing alone.

Only the standard library is imported: `python_api` runs this very file in processes of its own
(parsing holds the interpreter's lock), which works from a notebook, a script without a `__main__`
guard or a Dagster step alike, because nothing of the caller is imported there.
"""

import ast
import gc
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
LEAVES = (ast.Constant, ast.Load, ast.Store, ast.Pass)
"""The most frequent nodes that hold nothing of interest."""

WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")
"""Fields of a statement that hold further statements."""


def read_source(source: bytes, module: str, *, is_package: bool) -> dict[str, Any] | None:
    """Read the source code of `module` (`numpy.linalg`); None if it cannot be parsed.

    documents   [text, names of the functions called], one per function or method with a docstring
    imports     name at module level -> dotted name that it stands for
    stars       modules of which everything is imported (`from x import *`)
    defined     functions and classes at module level
    """
    if b'"""' not in source and b"'''" not in source and not is_package:
        return {"documents": [], "imports": {}, "stars": [], "defined": []}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

    parents = module.split(".") if is_package else module.split(".")[:-1]
    defined = {n.name for n in tree.body if isinstance(n, DEFINITIONS)}
    imports: dict[str, str] = {}
    stars: list[str] = []
    for statement in _statements(tree):
        if isinstance(statement, IMPORTS):
            found = _imported(statement, parents)
            stars += [found.pop("*")] if "*" in found else []
            imports.update(found)
    scope: dict[str, str | None] = {n: t for n, t in imports.items() if n not in defined}
    return {
        "documents": list(_documents(tree, scope, parents)),
        "imports": {name: target for name, target in scope.items() if target},
        "stars": stars,
        "defined": sorted(defined),
    }


def split_name(name: str) -> str:
    """
    >>> split_name("to_dense"), split_name("fitHTTPServer"), split_name("__init__")
    ('to dense', 'fit HTTP Server', 'init')
    """
    return " ".join(WORD_BORDER.sub(" ", name.replace("_", " ")).split())


def without_doctests(docstring: str) -> str:
    """The docstring as one line of text, without examples: from `>>>` to the next blank line.

    >>> without_doctests("Add.\\n\\n  >" + ">> add(1, 2)\\n  3\\n\\nSee also: sum.")
    'Add. See also: sum.'
    """
    kept = []
    in_example = False
    for line in docstring.splitlines():
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            kept += line.split()
    return " ".join(kept)


def _documents(
    parent: ast.AST, outer: Mapping[str, str | None], parents: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the documented functions below `parent`; `outer` has the names they see."""
    for function in _statements(parent):
        if not isinstance(function, FUNCTIONS):
            continue
        text = without_doctests(ast.get_docstring(function) or "")
        if not text and not any(isinstance(s, FUNCTIONS) for s in _statements(function)):
            continue  # most functions, and looking into them takes as long as parsing
        called, bound, imports = _look_into(function, parents)
        scope = {**outer, **dict.fromkeys(bound), **imports}
        if text:
            names = {name for expression in called if (name := _resolve(expression, scope))}
            yield f"{split_name(function.name)}: {text}", sorted(names)
        yield from _documents(function, scope, parents)


def _statements(parent: ast.AST) -> Iterator[ast.AST]:
    """Statements below `parent`, in order: into `if`, `try` and classes, not into functions."""
    for block in BLOCKS:
        for statement in getattr(parent, block, ()):
            yield statement
            if not isinstance(statement, FUNCTIONS):
                yield from _statements(statement)


def _look_into(
    function: Function, parents: Sequence[str]
) -> tuple[list[ast.expr], set[str], dict[str, str]]:
    """What a function's body calls, the names it binds, and the names it imports.

    Decorators and defaults are no part of the body. What functions inside it bind counts as bound
    here too: a name with two meanings in one body is better left out.
    """
    called: list[ast.expr] = []
    bound: set[str] = set()
    imports: dict[str, str] = {}
    arguments = function.args
    stack: list[ast.AST] = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    stack += [arg for arg in (arguments.vararg, arguments.kwarg) if arg]
    stack += function.body
    while stack:
        node = stack.pop()
        if isinstance(node, LEAVES):
            continue
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                bound.add(node.id)
            continue
        if isinstance(node, ast.Call):
            called.append(node.func)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, DEFINITIONS):
            bound.add(node.name)
        elif isinstance(node, IMPORTS):
            imports.update(_imported(node, parents))
        stack.extend(ast.iter_child_nodes(node))
    return called, bound, imports


def _imported(node: ast.Import | ast.ImportFrom, parents: Sequence[str]) -> dict[str, str]:
    """Name -> what it stands for; `*` -> the module. `parents`: the package of this file."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]: alias.name
            if alias.asname
            else alias.name.split(".")[0]
            for alias in node.names
        }
    if node.level > len(parents):
        return {}
    home = [*parents[: len(parents) - node.level + 1]] if node.level else []
    base = ".".join([*home, node.module] if node.module else home)
    return {
        alias.asname or alias.name: base if alias.name == "*" else f"{base}.{alias.name}"
        for alias in node.names
    }


def _resolve(expression: ast.expr, scope: Mapping[str, str | None]) -> str | None:
    """Dotted name of what is called, if its first part was imported; built-ins have none."""
    attributes: list[str] = []
    while isinstance(expression, ast.Attribute):
        attributes.append(expression.attr)
        expression = expression.value
    root = scope.get(expression.id) if isinstance(expression, ast.Name) else None
    if root is None or root.split(".")[0] == "builtins":
        return None
    return ".".join([root, *reversed(attributes)])


def read_file(path: str, module: str, is_package: bool) -> dict[str, Any] | None:
    """The same for a file; None as well if it cannot be read."""
    try:
        source = Path(path).read_bytes()
    except OSError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        return read_source(source, module, is_package=is_package)


if __name__ == "__main__":
    # A list of [path, module, is_package] comes in, a list of results goes out. Syntax trees have
    # no cycles; without the collector's search for them parsing takes 40 % less time.
    gc.disable()
    json.dump([read_file(*file) for file in json.load(sys.stdin)], sys.stdout)
