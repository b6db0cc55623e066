"""Runs a user's SQL over one day's files of a table and writes what it gives as the contract's Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sameworld.mapped_table import MappedTable
from sameworld.records import Blocked, Refused
from sameworld.sources.drop import DropFile
from sameworld.sources.sql_check import WANTED, first_line
from sameworld.sources.sql_columns import refuse_columns
from sameworld.sources.sql_engine import engine_over
from sameworld.store.blobs import sha256_of

# What the engine and what Arrow, reading from it, report.
_ERRORS = (duckdb.Error, pa.ArrowException, OSError)


@dataclass(frozen=True)
class DayOfFiles:
    """One day's files of a mapped table, in the order in which their rows count."""

    table: str
    day: date
    mapping: MappedTable
    files: tuple[DropFile, ...]

    @property
    def sql(self) -> str:
        """What to call the SQL in a message."""
        return f"{self.mapping.sql_file or f'the SQL of {self.table}'} over day={self.day}"

    @property
    def gzipped(self) -> bool:
        """Whether its files are compressed, by their names."""
        return any(file.name.endswith(".gz") for file in self.files)


def write_rows(mapped: DayOfFiles, out: Path, scratch: Path) -> None:
    """Write the rows that the SQL gives to ``out``, as many at a time as the engine gives at once.

    scratch : an empty folder, whose content may go afterwards

    Raises Blocked for a file that cannot be read, Refused for SQL that fails, for columns that are not the table's and
    for a file that changed meanwhile.
    """
    _refuse_mixed(mapped)
    paths = _linked(mapped, scratch)
    with _told(mapped, paths), engine_over(
        paths, kind=mapped.mapping.format, gzipped=mapped.gzipped, delimiter=mapped.mapping.delimiter, day=mapped.day,
        scratch=scratch / "spill",
    ) as engine:  # fmt: skip
        given = engine.sql("SELECT * FROM files").columns
        try:
            rows = engine.sql(mapped.mapping.select)
            batches = pa.RecordBatchReader.from_stream(rows)
            refuse_columns(mapped.table, mapped.sql, batches.schema, [str(kind) for kind in rows.types])
            _write(batches, out)
        except _ERRORS as error:
            _blame_file(mapped, paths, error)
            raise Refused(what=f"{mapped.sql} fails", got=first_line(error), wanted=WANTED,
                          remedy=f"files has the columns: {', '.join(given)}") from None  # fmt: skip
    _refuse_changed(mapped)


def _write(rows: pa.RecordBatchReader, out: Path) -> None:
    schema = pa.schema([pa.field(field.name, field.type) for field in rows.schema])
    with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as file:
        for batch in rows:
            file.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def _linked(mapped: DayOfFiles, scratch: Path) -> list[Path]:
    """Give the files names of their own: the engine reads signs such as ``*`` in a path as a pattern."""
    (scratch / "spill").mkdir(parents=True)
    paths = [scratch / f"file-{number}" for number in range(len(mapped.files))]
    for path, file in zip(paths, mapped.files, strict=True):
        path.symlink_to(file.path.resolve())
    return paths


@contextmanager
def _told(mapped: DayOfFiles, paths: Sequence[Path]) -> Iterator[None]:
    """Turn what the engine says of the files themselves into ``Blocked``, with the name that the drop has for them."""
    try:
        yield
    except _ERRORS as error:
        _blame_file(mapped, paths, error)
        raise Blocked(what=f"{mapped.table} of day={mapped.day} cannot be read as {mapped.mapping.format}: "
                           f"{first_line(error)}") from None  # fmt: skip


def _blame_file(mapped: DayOfFiles, paths: Sequence[Path], error: BaseException) -> None:
    """Raise Blocked if the error is about one of the files."""
    for path, file in zip(paths, mapped.files, strict=True):
        if re.search(rf"{re.escape(str(path))}(?!\d)", str(error)):
            said = first_line(error).replace(str(path), file.name)
            raise Blocked(what=f"{file.name} is no readable {mapped.mapping.format}: {said}") from None


def _refuse_mixed(mapped: DayOfFiles) -> None:
    plain = [file.name for file in mapped.files if not file.name.endswith(".gz")]
    if mapped.gzipped and plain:
        raise Refused(what=f"{mapped.table} of day={mapped.day} has compressed files beside others", got=plain[0],
                      wanted="all of them .gz, or none", remedy="narrow the pattern in files")  # fmt: skip


def _refuse_changed(mapped: DayOfFiles) -> None:
    for file in mapped.files:
        if sha256_of(file.path) != file.sha256:
            raise Refused(what=f"{file.name} changed while it was read", wanted="the same bytes",
                          remedy="run again once its exporter is done")  # fmt: skip
