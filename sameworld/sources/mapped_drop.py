"""A drop whose files have a shape of their own: each day's rows are what the user's SQL makes of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import duckdb

from sameworld.mapped_table import MappedTable
from sameworld.records import NotYet, Refused
from sameworld.sources import sql_rows
from sameworld.sources.day_pattern import at, days_of, files_of
from sameworld.sources.drop import Drop, DropDay, DropFile
from sameworld.sources.made_once import make_once
from sameworld.sources.sql_check import refuse_unfit_sql
from sameworld.sources.sql_rows import DayOfFiles, write_rows
from sameworld.store.artifacts import fingerprint_of
from sameworld.store.blobs import cache_folder, sha256_of
from sameworld.store.code import code_hash

ROWS, HASH = "rows.parquet", "rows.sha256"


class MappedDay(DropDay):
    """One complete day of mapped tables."""

    @property
    def fingerprint(self) -> str:
        """The hash over its day, its files' content and the engine's version, which can change the rows' order."""
        return fingerprint_of({"files": super().fingerprint, "engine": duckdb.__version__})


class MappedDrop(Drop):
    """A drop of which only the mapped tables are read; a day is there once each table's ``ready`` file is.

    A mapped table has one file a day, in the cache, whose hash is taken over the raw files' bytes, the SQL and the day:
    it is known before the SQL runs, and the same whichever version of the engine runs it.

    Raises Refused for SQL that is not one SELECT over ``files``, before anything is read.
    """

    def __init__(self, uri: str, tables: Mapping[str, MappedTable]) -> None:
        super().__init__(uri)
        self._tables = dict(sorted(tables.items()))
        for name, table in self._tables.items():
            if table.select:
                refuse_unfit_sql(table.select, table.sql_file or f"the SQL of {name}")

    def days(self) -> list[date]:
        """Return the complete days, oldest first."""
        first = next(iter(self._tables.values()))
        return [day for day in days_of(self._place, first.ready) if self.is_there(day)]

    def is_there(self, day: date) -> bool:
        """Say whether the ``ready`` file of every table has been written."""
        return not self._awaited(day)

    def day(self, day: date) -> DropDay:
        """Return a complete day; no SQL runs before a file's ``path`` is asked for.

        Raises NotYet for a day that is not complete, Refused where a table that is not optional has no file.
        """
        awaited = self._awaited(day)
        if awaited:
            raise NotYet(what=f"day {day} of the drop is not there yet", wanted=awaited[0],
                         remedy="run again once it has landed")  # fmt: skip
        found = {name: files for name in self._tables if (files := self._files(name, day))}
        self._memo.save()
        return MappedDay(day, found)

    def _awaited(self, day: date) -> list[str]:
        """Return the names of the ``ready`` files that a day still lacks."""
        names = sorted({at(table.ready, day) for table in self._tables.values()})
        split = [(name, *name.rpartition("/")[::2]) for name in names]
        return [name for name, folder, file in split if file not in self._place.names(folder)]

    def _files(self, name: str, day: date) -> tuple[DropFile, ...]:
        table = self._tables[name]
        raw = self._hashed(files_of(self._place, table.files, day))
        if not raw and not table.optional:
            raise Refused(what=f"day {day} has no file of {name}", got=f"nothing at {at(table.files, day)}",
                          wanted="at least one file",
                          remedy=f"check files; if such days are sound: source.tables.{name}.optional = true"
                          )  # fmt: skip
        return (_mapped(DayOfFiles(name, day, table, raw)),) if raw and table.select else raw


def _mapped(day: DayOfFiles) -> DropFile:
    """Return the file of a day's mapped rows."""
    made_of = {"table": day.table, "day": day.day.isoformat(), "raw": [file.sha256 for file in day.files],
               "mapping": day.mapping.model_dump(include={"select", "format", "delimiter"})}  # fmt: skip
    digest = fingerprint_of(made_of)
    return DropFile(day.sql, digest, lambda: _rows(day, digest))


def _rows(day: DayOfFiles, digest: str) -> Path:
    """Return the mapped rows from the cache, made if they are not there, or not as they were written."""
    made_by = {"rows": digest, "code": code_hash(sql_rows.__name__), "engine": duckdb.__version__}
    folder = cache_folder() / "sources" / fingerprint_of(made_by)
    if folder.exists() and not _is_intact(folder):
        shutil.rmtree(folder)
    return make_once(folder, lambda aside: _write(day, aside)) / ROWS


def _is_intact(folder: Path) -> bool:
    try:
        return sha256_of(folder / ROWS) == (folder / HASH).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return False


def _write(day: DayOfFiles, aside: Path) -> None:
    aside.mkdir()
    scratch = aside / "scratch"
    write_rows(day, aside / ROWS, scratch)
    shutil.rmtree(scratch)
    (aside / HASH).write_text(sha256_of(aside / ROWS), encoding="ascii")
