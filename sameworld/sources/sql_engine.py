"""The engine that runs a user's SQL: it reads the files that it was given and nothing else, and writes nothing.

One thread and the files' own order, so that the same rows give the same answer in the same order; UTC; no extension is
fetched; memory beyond a share of the machine's goes to a scratch folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from sameworld.sources.sql_check import FILES

MEMORY = "50%"
_LIST = "list_value({})"
# What is not said here the engine would guess from the data, and guess otherwise on another day.
_READERS = {
    "parquet": "SELECT * FROM read_parquet({files}, union_by_name = true, hive_partitioning = false)",
    "jsonl": "SELECT json AS line FROM read_json_objects({files}, format = 'newline_delimited', "
             "compression = {compression}, hive_partitioning = false)",
    "csv": "SELECT * FROM read_csv({files}, all_varchar = true, header = true, delim = {delimiter}, quote = '\"', "
           "escape = '\"', comment = '', skip = 0, strict_mode = true, null_padding = false, union_by_name = true, "
           "allow_quoted_nulls = false, compression = {compression}, hive_partitioning = false)",
}  # fmt: skip


@contextmanager
def engine_over(
    paths: Sequence[Path], *, kind: str, gzipped: bool, delimiter: str, day: date, scratch: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield an engine with the one relation ``files``: the rows of these files, in their order.

    kind : parquet | csv (each column is text) | jsonl (one column ``line`` of JSON)
    day : what ``getvariable('day')`` gives
    scratch : a folder for what the memory does not hold

    Raises duckdb.Error for files that cannot be opened.
    """
    settings: Mapping[str, Any] = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(scratch),
                                   "preserve_insertion_order": True, "autoinstall_known_extensions": False,
                                   "autoload_known_extensions": False}  # fmt: skip
    listed = _LIST.format(", ".join(quoted(str(path)) for path in paths))
    compression = quoted("gzip" if gzipped else "none")
    rows = _READERS[kind].format(files=listed, delimiter=quoted(delimiter), compression=compression)
    with duckdb.connect(":memory:", config=dict(settings)) as engine:
        for statement in (
            "SET TimeZone = 'UTC'",
            "SET python_enable_replacements = false",
            f"SET VARIABLE day = DATE {quoted(day.isoformat())}",
            f"SET allowed_paths = {listed}",
            "SET enable_external_access = false",
            f"CREATE VIEW {FILES} AS {rows}",
            "SET lock_configuration = true",
        ):
            engine.execute(statement)
        yield engine


def quoted(text: str) -> str:
    """Return a text as SQL's literal.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
