"""Reads a table's files as the contract means them: one frame, in the files' order, each column in its own kind.

Nothing is cast from one kind to another: text where numbers were promised blocks the day, with the file's name. Times
become UTC microseconds (nanoseconds are cut off below), NaN in a feature becomes null, a missing optional column null.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from zoneinfo import available_timezones

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sameworld.records import Blocked, Refused
from sameworld.sources.contract import DTYPES, WANTED, Column, FeatureKind, Layout, feature_kind, fits, layout_of
from sameworld.sources.drop import DropFile
from sameworld.sources.page_checks import verify_pages
from sameworld.sources.size_checks import block_bomb

# Set, by whoever repaired a file's text, on the rows whose text was no UTF-8.
BAD_TEXT = "sameworld: bad text"
# Polars reports what it cannot decode as an error, or panics; a panic derives from BaseException.
READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_WHOLE_HOURS = re.compile(r"[+-]\d\d:00")
_FAR_MS = 2**53  # milliseconds beyond this do not fit into microseconds; they are out of range either way


@dataclass(frozen=True)
class Opened:
    """A file whose footer could be read: its rows, and its columns' types."""

    name: str
    path: Path
    rows: int
    schema: Mapping[str, pl.DataType]


@dataclass(frozen=True)
class Table:
    """A table's rows as the contract means them.

    frame : the contract's columns, then the features by name; rows in the order of the files, then as they lie there
    features : what each feature holds; ignored : columns that are neither
    """

    layout: Layout
    files: tuple[DropFile, ...]
    rows: tuple[int, ...]
    frame: pl.LazyFrame
    features: Mapping[str, FeatureKind]
    ignored: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """The names of what is kept of a row."""
        return [*(column.name for column in self.layout.columns), *self.features]


def read_table(table: str, files: Sequence[DropFile], *, paths: Mapping[str, Path] | None = None) -> Table:
    """Open a table's files and return its rows, unread.

    paths : files to read in place of those with these hashes (repaired ones)
    Raises Blocked, with the file's name, for an unreadable file, a missing column or a wrong type; Refused for a
    timestamp without a zone.
    """
    opened = [_open(file, (paths or {}).get(file.sha256) or file.path) for file in files]
    layout = layout_of(table, {name for file in opened for name in file.schema})
    for file in opened:
        _refuse_columns(file, layout)
    features = _features(opened, layout)
    ignored = {name for file in opened for name in file.schema if not layout.has(name) and name not in features}
    return Table(
        layout=layout,
        files=tuple(files),
        rows=tuple(file.rows for file in opened),
        frame=_frame(opened, layout, features),
        features=features,
        ignored=tuple(sorted(ignored - {BAD_TEXT} - _empty_features(opened, layout))),
    )


def _open(file: DropFile, path: Path) -> Opened:
    try:
        footer = pq.ParquetFile(path)
        _refuse_zones(file.name, footer.schema_arrow)
        block_bomb(file.name, path, footer)
        verify_pages(path)
        schema = pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema()
    except (*READ_ERRORS, pa.ArrowException, ValueError) as error:
        raise unreadable(file.name, error) from None
    return Opened(file.name, path, int(footer.metadata.num_rows), dict(schema))


@cache
def _named_zones() -> frozenset[str]:
    """Return the zones that have a name; asking walks a folder of hundreds of files, so once is enough."""
    return frozenset(available_timezones())


def _refuse_zones(name: str, schema: pa.Schema) -> None:
    """Refuse a zone that Polars does not know, such as an offset of half an hour: it would panic."""
    for field in schema:
        zone = field.type.tz if pa.types.is_timestamp(field.type) else None
        if zone not in (None, "UTC") and not _WHOLE_HOURS.fullmatch(zone) and zone not in _named_zones():
            raise Refused(what=f"{name}: column {field.name!r} has timestamps in an unknown zone", got=zone,
                          wanted=WANTED["time"], remedy="write them with tz=UTC")  # fmt: skip


def unreadable(name: str, error: BaseException) -> Blocked:
    """Return the error for a file that cannot be read, without its local path."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return Blocked(what=f"{name} is no readable Parquet file: {reason}")


def _refuse_columns(file: Opened, layout: Layout) -> None:
    for column in layout.columns:
        dtype = file.schema.get(column.name)
        if dtype is None:
            if not column.nullable:
                raise _missing(file, column, layout)
        elif not fits(column.kind, dtype):
            raise _wrong_type(file, column.name, dtype, WANTED[column.kind])
        elif isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            raise Refused(what=f"{file.name}: column {column.name!r} has timestamps without a zone",
                          got=_shown(dtype), wanted=WANTED["time"], remedy="write them with tz=UTC")  # fmt: skip
    for name, dtype in file.schema.items():
        if name.startswith("x_") and not layout.has(name) and not _may_be_feature(dtype):
            raise _wrong_type(file, name, dtype, "a float, int, bool or string")


def _missing(file: Opened, column: Column, layout: Layout) -> Blocked:
    others = [name for name in file.schema if not layout.has(name)]
    near = difflib.get_close_matches(column.name, others, n=1, cutoff=0.5) or others[:1]
    hint = f"; it has {near[0]!r} (renamed?)" if near else ""
    return Blocked(what=f"{file.name} lacks column {column.name!r} ({WANTED[column.kind]}){hint}")


def _wrong_type(file: Opened, name: str, dtype: pl.DataType, wanted: str) -> Blocked:
    return Blocked(what=f"{file.name}: column {name!r} has a wrong type: got {_shown(dtype)}; wanted {wanted}")


def _shown(dtype: pl.DataType) -> str:
    return str(dtype).lower()


def _may_be_feature(dtype: pl.DataType) -> bool:
    return feature_kind(dtype) is not None or isinstance(dtype, pl.Null)


def _features(opened: Sequence[Opened], layout: Layout) -> dict[str, FeatureKind]:
    found: dict[str, tuple[FeatureKind, str]] = {}
    for file in opened:
        for name, dtype in file.schema.items():
            kind = feature_kind(dtype)
            if kind is None or layout.has(name) or not layout.is_feature(name) or name == BAD_TEXT:
                continue
            first, where = found.setdefault(name, (kind, file.name))
            if first != kind:
                raise Blocked(what=f"{file.name}: column {name!r} has a wrong type: got {kind}; "
                                   f"wanted {first}, as in {where}")  # fmt: skip
    return {name: found[name][0] for name in sorted(found)}


def _empty_features(opened: Sequence[Opened], layout: Layout) -> set[str]:
    """Return the features that are null throughout, of no type: a missing column says the same."""
    return {
        name
        for file in opened
        for name, dtype in file.schema.items()
        if layout.is_feature(name) and isinstance(dtype, pl.Null)
    }


def _frame(opened: Sequence[Opened], layout: Layout, features: Mapping[str, FeatureKind]) -> pl.LazyFrame:
    marked = any(BAD_TEXT in file.schema for file in opened)
    parts = []
    for schema, alike in _alike(opened):
        raw = pl.scan_parquet([file.path for file in alike], glob=False, hive_partitioning=False)
        columns = [_column(column, schema.get(column.name)) for column in layout.columns]
        present = [_feature(name, schema[name]) for name in features if _is_typed(schema.get(name))]
        mark = [pl.col(BAD_TEXT) if BAD_TEXT in schema else pl.lit(False).alias(BAD_TEXT)] if marked else []
        parts.append(raw.select(*columns, *present, *mark))
    names = [*(column.name for column in layout.columns), *features, *([BAD_TEXT] if marked else [])]
    frame = pl.concat(parts, how="diagonal_relaxed") if len(parts) > 1 else parts[0]
    return frame.select(names)


def _alike(opened: Sequence[Opened]) -> Iterator[tuple[Mapping[str, pl.DataType], list[Opened]]]:
    """Yield neighbours of equal types, which one scan reads."""
    for _, group in groupby(opened, key=lambda file: sorted((name, str(kind)) for name, kind in file.schema.items())):
        files = list(group)
        if len({tuple(file.schema) for file in files}) == 1:
            yield files[0].schema, files
        else:
            for file in files:
                yield file.schema, [file]


def _is_typed(dtype: pl.DataType | None) -> bool:
    return dtype is not None and not isinstance(dtype, pl.Null)


def _column(column: Column, dtype: pl.DataType | None) -> pl.Expr:
    target = DTYPES[column.kind]
    if dtype is None or isinstance(dtype, pl.Null):
        return pl.lit(column.default, dtype=target).alias(column.name)
    value = pl.col(column.name)
    if column.kind == "time":
        value = _microseconds(value, dtype)
    elif column.kind == "int32":
        # a position that int32 cannot hold is as bad as 0
        value = pl.when(value.is_between(-(2**31), 2**31 - 1) | value.is_null()).then(value).otherwise(0).cast(target)
    elif column.kind == "candidates":
        fields = (pl.element().struct.field(name) for name in ("item_id", "score"))
        value = value.list.eval(pl.struct(*fields)).cast(target)
    else:
        value = value.cast(target)
    if column.kind == "double" and column.nan_is_null:
        value = value.fill_nan(None)
    return value if column.default is None else value.fill_null(column.default)


def _microseconds(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ms":
        value = value.cast(pl.Int64).clip(-_FAR_MS, _FAR_MS) * 1000
    elif isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
        value = value.cast(pl.Int64) // 1000
    return value.cast(DTYPES["time"])


def _feature(name: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    if dtype.is_float():
        return (value.cast(pl.Float32) if isinstance(dtype, pl.Float16) else value).fill_nan(None)
    return value.cast(pl.String) if feature_kind(dtype) == "string" else value
