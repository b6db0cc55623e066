"""A drop: a folder or S3 prefix with one folder for each UTC day of arrival, complete once ``_SUCCESS`` lies in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

from sameworld.records import NotYet
from sameworld.sources.hash_memo import HashMemo
from sameworld.sources.places import Listed, place_of
from sameworld.store.artifacts import fingerprint_of
from sameworld.store.log import TABLES, VIEW_PREFIX

SUCCESS = "_SUCCESS"
_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class DropFile:
    """One Parquet file of a drop; ``name`` is its place below the drop, for messages only."""

    name: str
    sha256: str
    locate: Callable[[], Path] = field(compare=False, repr=False)

    @cached_property
    def path(self) -> Path:
        """A local file with its bytes; fetched first where the drop is remote."""
        return self.locate()


@dataclass(frozen=True)
class DropDay:
    """One complete day: its files by table, each table's in the order of their hashes, and what is no table."""

    day: date
    files: Mapping[str, tuple[DropFile, ...]]
    ignored: tuple[str, ...] = ()

    @property
    def content(self) -> dict[str, list[str]]:
        """The hashes of its files by table."""
        return {table: [file.sha256 for file in files] for table, files in sorted(self.files.items())}

    @property
    def fingerprint(self) -> str:
        """The hash over its day and its files' content; no name, path or time goes in."""
        return fingerprint_of({"day": self.day.isoformat(), "content": self.content})


class Drop:
    """A drop in a folder (a path or ``file://``) or below ``s3://bucket/prefix``.

    Raises Refused where there is no such folder, or the URI is of another kind.
    """

    def __init__(self, uri: str) -> None:
        self._place = place_of(uri)
        self.uri = self._place.uri
        self._memo = HashMemo(self.uri)

    def days(self) -> list[date]:
        """Return the complete days, oldest first."""
        found = [day for name in self._place.names("") if (day := _day_of(name)) is not None]
        return sorted(day for day in found if self.is_there(day))

    def is_there(self, day: date) -> bool:
        """Say whether a day's ``_SUCCESS`` has been written."""
        return SUCCESS in self._place.names(_folder(day))

    def first_day(self) -> date | None:
        """Return the oldest complete day, or None where there is none yet."""
        return min(self.days(), default=None)

    def day(self, day: date) -> DropDay:
        """Return a complete day; one without ``_SUCCESS`` is not there yet (``NotYet``)."""
        if not self.is_there(day):
            raise NotYet(what=f"day {day} of the drop is not there yet", wanted=f"{_folder(day)}/{SUCCESS}",
                         remedy="run again once it has landed")  # fmt: skip
        tables: dict[str, list[Listed]] = {}
        ignored = set[str]()
        for file in self._place.files(_folder(day)):
            table = _table_of(file.name)
            if table:
                tables.setdefault(table, []).append(file)
            elif not file.name.endswith(f"/{SUCCESS}"):
                ignored.add(_unknown(file.name))
        found = {table: self._hashed(files) for table, files in sorted(tables.items())}
        self._memo.save()
        return DropDay(day, found, tuple(sorted(ignored)))

    def _hashed(self, files: list[Listed]) -> tuple[DropFile, ...]:
        with ThreadPoolExecutor(4) as pool:
            return tuple(sorted(pool.map(self._hash, files), key=lambda file: file.sha256))

    def _hash(self, file: Listed) -> DropFile:
        digest = self._memo.get(file.name, file.mark) or self._place.sha256(file.name)
        self._memo.note(file.name, file.mark, digest, changed_at=file.changed_at)
        return DropFile(file.name, digest, lambda: self._place.local(file.name, digest))


def _folder(day: date) -> str:
    return f"day={day.isoformat()}"


def _day_of(name: str) -> date | None:
    match = _DAY.fullmatch(name)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def _table_of(name: str) -> str | None:
    """Return the table that a file belongs to.

    >>> _table_of("day=2026-03-01/features/item_stats/part-0.parquet")
    'features.item_stats'
    """
    _, *folders, file = name.split("/")
    if not file.endswith(".parquet") or file.startswith((".", "_")):
        return None
    if len(folders) == 1 and folders[0] in TABLES:
        return folders[0]
    return VIEW_PREFIX + folders[1] if len(folders) == 2 and folders[0] == "features" else None


def _unknown(name: str) -> str:
    """Return what to list for a file of no table: its folder where that is unknown, else itself."""
    _, *folders, file = name.split("/")
    known = bool(folders) and (folders[0] in TABLES or folders[0] == "features")
    return "/".join([*folders, file]) if known or not folders else folders[0]
