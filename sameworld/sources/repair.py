"""Makes a file readable whose text is not UTF-8: such rows can then be quarantined one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sameworld.sources.drop import DropFile
from sameworld.sources.tables import BAD_TEXT, READ_ERRORS, unreadable


def repaired(files: Sequence[DropFile], folder: Path) -> dict[str, Path]:
    """Look for the file that could not be read; return copies of those whose only fault is their text, by hash.

    In a copy each row with text that is no UTF-8 is marked, and its wrong bytes are written as ``\\xff``.
    Raises Blocked, with its name, for a file that cannot be read at all.
    """
    return {file.sha256: copy for file in files if (copy := _repaired(file, folder)) is not None}


def _repaired(file: DropFile, folder: Path) -> Path | None:
    fault = _fault(file.path)
    if fault is None:
        return None
    try:
        rows = pq.ParquetFile(file.path).read()
        marked = _marked(rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(file.name, error) from None
    if not pa.compute.any(marked[BAD_TEXT]).as_py():
        raise unreadable(file.name, fault)
    copy = folder / f"{file.sha256}.parquet"
    pq.write_table(marked, copy)
    return copy


def _fault(path: Path) -> BaseException | None:
    try:
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        frame.select(pl.all().null_count()).collect(engine="streaming")
    except READ_ERRORS as error:
        return error
    return None


def _marked(rows: pa.Table) -> pa.Table:
    bad = [False] * rows.num_rows
    for place, field in enumerate(rows.schema):
        raw = _as_bytes(field.type)
        if raw is None:
            continue
        texts = [_text(value) for value in _plain(rows[field.name]).cast(raw).to_pylist()]
        bad = [one or not ok for one, (_, ok) in zip(bad, texts, strict=True)]
        rows = rows.set_column(place, field.name, pa.array([text for text, _ in texts], _as_text(raw)))
    return rows.append_column(BAD_TEXT, pa.array(bad))


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _as_bytes(kind: pa.DataType) -> pa.DataType | None:
    """Return the type with bytes wherever it has text, or None where it has none."""
    if pa.types.is_dictionary(kind):
        return _as_bytes(kind.value_type)
    if pa.types.is_map(kind):
        return pa.map_(_as_bytes(kind.key_type) or kind.key_type, _as_bytes(kind.item_type) or kind.item_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _as_bytes(kind.value_type)
        return pa.list_(inner) if inner else None
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_bytes(field.type) or field.type) for field in kind])
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.large_binary() if text else None


def _as_text(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_map(kind):
        return pa.map_(_as_text(kind.key_type), _as_text(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_text(field.type)) for field in kind])
    return pa.large_string() if pa.types.is_large_binary(kind) else kind


def _text(value: Any) -> tuple[Any, bool]:
    """Return a value with its bytes as text, and whether all of them were UTF-8."""
    if isinstance(value, bytes):
        text = value.decode("utf-8", errors="backslashreplace")
        return text, text.encode() == value
    if isinstance(value, dict):
        parts = {name: _text(one) for name, one in value.items()}
        return {name: text for name, (text, _) in parts.items()}, all(ok for _, ok in parts.values())
    if isinstance(value, list | tuple):
        listed = [_text(one) for one in value]
        return type(value)(text for text, _ in listed), all(ok for _, ok in listed)
    return value, True
