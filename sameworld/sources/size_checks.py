"""Blocks a Parquet file that would unpack to far more than it is, before any of it is unpacked.

Against the file's own size counts the larger of a column's uncompressed size and its values: a run of equal ones has no
size of its own.
A footer that lies about them is not noticed.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sameworld.records import Blocked

CHUNK_BYTES = 2**30  # of one column in one row group, unpacked; exporters write a tenth of it at most
FREE_BYTES = 2**30  # a file of so much is no danger, however well it is packed
WORST_RATIO = 1_000  # rows with keys of their own pack 3 to 50 times
VALUE_BYTES = 16  # what a value takes at least while it is worked on: a text's view, a time and its flag
# pyarrow 25 ends the process over some damaged footers when it is asked for a column (``RowGroupMetaData.column``).
_COLUMNS = """
SELECT max(total_uncompressed_size),
       sum(greatest(total_uncompressed_size, num_values * $value))
FROM parquet_metadata($file)
"""


def block_bomb(name: str, path: Path, file: pq.ParquetFile) -> None:
    """Raise Blocked for a file whose footer promises a thousand times the file, or a column too large to hold.

    name : the file's place in the drop;  file : the same, opened
    """
    chunk = whole = _of_rows(file)
    if whole > FREE_BYTES or any(pa.types.is_nested(field.type) for field in file.schema_arrow):
        chunk, whole = _of_columns(path) or (0, whole)
    packed = path.stat().st_size
    if chunk > CHUNK_BYTES:
        raise Blocked(what=f"{name} has a column that unpacks to {chunk / 2**30:,.1f} GiB in one row group, more than "
                           f"{CHUNK_BYTES / 2**30:.0f}: write smaller row groups")  # fmt: skip
    if whole > FREE_BYTES and whole > WORST_RATIO * packed:
        raise Blocked(what=f"{name} unpacks from {packed:,} bytes to {whole / 2**30:,.1f} GiB, more than "
                           f"{WORST_RATIO:,} times its size: is it what the exporter wrote?")  # fmt: skip


def _of_rows(file: pq.ParquetFile) -> int:
    """Return what a file unpacks to by its row groups alone; values inside of lists are not in it."""
    footer = file.metadata
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    return sum(max(one.total_byte_size, one.num_rows * footer.num_columns * VALUE_BYTES) for one in groups)


def _of_columns(path: Path) -> tuple[int, int] | None:
    """Return the largest column chunk and the whole; None for a footer with statistics that cannot be read."""
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as engine:
            found = engine.execute(_COLUMNS, {"value": VALUE_BYTES, "file": str(path)}).fetchone()
    except duckdb.Error:
        return None
    return (int(found[0] or 0), int(found[1] or 0)) if found else None
