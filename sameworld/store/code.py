"""Which code an answer comes from: the hash of a module and of everything of ours that it imports."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import sys
import threading
from functools import cache
from pathlib import Path

OURS = ("sameworld", "tasks", "expectations")
# Libraries whose version can change a number; the rest of the environment cannot.
COMPUTING = (
    "duckdb",
    "great-expectations",
    "lightgbm",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "scikit-learn",
    "scipy",
)
PROJECT = Path(__file__).resolve().parents[2]
# Parts are made in threads. CPython 3.11 counts the depth of all threads' parses in one place (python/cpython#106905),
# and taking the docstrings out of one tree twice at once takes a statement with them.
_ONE_AT_A_TIME = threading.Lock()


@cache
def closure(module: str) -> tuple[str, ...]:
    """Return the names of ``module`` and all of our modules that it reaches by import, sorted.

    >>> closure("sameworld.records")
    ('sameworld', 'sameworld.records')
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            # Importing a module runs the packages above it.
            waiting += [*_imports(name), *([name.rpartition(".")[0]] if "." in name else [])]
    return tuple(sorted(found))


@cache
def code_hash(module: str) -> str:
    """Return the SHA-256 over the closure's syntax trees: comments, layout and docstrings do not count."""
    digest = hashlib.sha256()
    with _ONE_AT_A_TIME:
        for name in closure(module):
            digest.update(name.encode() + b"\0" + _meaning(_tree(name)).encode() + b"\0")
    return digest.hexdigest()


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python, **{name: importlib.metadata.version(name) for name in COMPUTING}}


def _path(module: str) -> Path | None:
    base = PROJECT / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    return ast.parse(path.read_text(encoding="utf-8") if path else "")


@cache
def _imports(module: str) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _imported_from(module, node)
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
    return tuple(sorted(name for name in names if name.split(".")[0] in OURS and _path(name)))


def _imported_from(module: str, node: ast.ImportFrom) -> str:
    """Return the absolute name of what an import reads from; ``from . import x`` counts dots from its own package."""
    if not node.level:
        return node.module or ""
    path, parts = _path(module), module.split(".")
    package = parts if path and path.name == "__init__.py" else parts[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


@cache
def _meaning(tree: ast.Module) -> str:
    """Return a module's syntax tree as text, its docstrings taken out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
