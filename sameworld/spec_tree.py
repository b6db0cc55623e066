"""A spec's TOML tree, before it is validated: read, changed, put over another."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sameworld.records import Refused


def read_toml(path: Path) -> dict[str, Any]:
    """Parse one TOML file; a syntax error names its line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Refused(what=f"{path} is not TOML", got=str(error), remedy="see experiments/baseline.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(what="cannot read a spec", got=f"{path}: {error}", wanted="a TOML file") from None


def set_key(tree: dict[str, Any], change: str) -> None:
    """Set one key by ``key.path=value``; the value is TOML, a bare word counts as a string."""
    key, equals, value = (part.strip() for part in change.partition("="))
    names = key.split(".")
    if not equals or not all(names):
        raise Refused(what="--set cannot be read", got=change, wanted="key.path=value", remedy="--set train.days=30")
    for name in names[:-1]:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            raise Refused(what="--set goes below a value", got=change, wanted=f"a key; {name!r} is a value")
        tree = below
    tree[names[-1]] = _value(value)


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


# Tables of free keys (gains, views, guardrails) are values, not sections: a change replaces them whole.
_VALUES = {"gains", "views", "guardrails"}


def merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Put one tree over another, key by key."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict) and key not in _VALUES:
            merge(below[key], value)
        else:
            below[key] = value
