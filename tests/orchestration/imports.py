"""Which source files a stage runs, found by reading imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "xmc_core"


def imported_files(module: str, root: Path, passed_by: frozenset[str]) -> set[str]:
    """Files of xmc_core whose code `module` may run, as paths relative to `root`.

    Imports inside functions count, those for type checkers do not. A name that a package only
    re-exports leads to the module that defines it, not to all that the package has. Modules in
    `passed_by` are neither listed nor followed.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name, root)
        if file is None or name in passed_by or str(file.relative_to(root)) in seen:
            continue
        seen.add(str(file.relative_to(root)))
        if file.name != "__init__.py":
            waiting += _imports(file, root)
    return seen


def _file(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None)


def _imports(file: Path, root: Path) -> Iterator[str]:
    for module, name in _named(ast.parse(file.read_text(encoding="utf-8"))):
        yield from _home(module, name, root)


def _home(module: str, name: str, root: Path) -> Iterator[str]:
    """The module that `from module import name` is about, and the packages on the way."""
    yield module
    if _file(f"{module}.{name}", root) is not None:
        yield f"{module}.{name}"
        return
    file = _file(module, root)
    if file is not None and file.name == "__init__.py":
        for source, exported in _named(ast.parse(file.read_text(encoding="utf-8"))):
            if exported == name:
                yield from _home(source, name, root)


def _named(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import from xmc_core."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == PACKAGE:
            yield from ((str(child.module), alias.name) for alias in child.names)
        elif not isinstance(child, ast.ImportFrom):
            yield from _named(child)
