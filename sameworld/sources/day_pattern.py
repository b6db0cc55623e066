"""Names of files with ``{day}`` in them: which files are a day's, and which days there may be."""

from __future__ import annotations

import re
from datetime import date
from fnmatch import fnmatchcase

from sameworld.mapped_table import DAY
from sameworld.sources.places import Listed, Place


def at(pattern: str, day: date) -> str:
    """Return a pattern for one day.

    >>> at("dt={day}/events-{day}.csv", date(2026, 3, 1))
    'dt=2026-03-01/events-2026-03-01.csv'
    """
    return pattern.replace(DAY, day.isoformat())


def files_of(place: Place, pattern: str, day: date) -> list[Listed]:
    """Return a day's files, by name; hidden ones (``.x``, ``_x``) only where the pattern says so."""
    wanted = at(pattern, day).split("/")
    literal = next(number for number, part in enumerate([*wanted[:-1], "*"]) if "*" in part or "?" in part)
    return [file for file in place.files("/".join(wanted[:literal])) if _matches(file.name.split("/"), wanted)]


def _matches(parts: list[str], wanted: list[str]) -> bool:
    """Say whether a name's parts are those of a pattern, one by one.

    >>> _matches(["dt=1", "a.csv"], ["dt=1", "*.csv"]), _matches(["dt=1", "_a.csv"], ["dt=1", "*.csv"])
    (True, False)
    """
    return len(parts) == len(wanted) and all(
        fnmatchcase(part, one) and (part[0] not in "._" or part[0] == one[0])
        for part, one in zip(parts, wanted, strict=True)
    )


def days_of(place: Place, ready: str) -> list[date]:
    """Return the days whose part of a ``ready`` pattern is there; the file itself may not be."""
    parts = ready.split("/")
    depth = next(number for number, part in enumerate(parts) if DAY in part)
    before, _, after = parts[depth].partition(DAY)
    rest = re.escape(after).replace(re.escape(DAY), r"\1")
    shape = re.compile(rf"{re.escape(before)}(\d{{4}}-\d{{2}}-\d{{2}}){rest}")
    found = (shape.fullmatch(name) for name in place.names("/".join(parts[:depth])))
    days = (_day(match[1]) for match in found if match)
    return sorted({day for day in days if day})


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
