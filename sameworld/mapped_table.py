"""One table of somebody's own log in a spec: which files hold it, when a day of them is there, and the SQL over them.

The SQL's text stands in the spec itself, so that a spec says by itself what a run is made of; where the text came from
is kept for messages only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from sameworld.records import Refused

DAY = "{day}"
NAMES = ("requests", "impressions", "outcomes", "candidates")
VIEW = re.compile(r"features\.[\w-]+")
SUCCESS = "_SUCCESS"
KEYS = ("files", "select", "format", "ready", "delimiter", "optional")
_ENDINGS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl"}


class MappedTable(BaseModel):
    """Where a table's rows lie and how they become the contract's; patterns are relative to ``source.uri``.

    files : a pattern with ``{day}`` (YYYY-MM-DD) in it; ``*`` and ``?`` stand for what a name between two slashes holds
    select : the SQL's text, one SELECT over the relation ``files``; empty: the files are the contract's Parquet already
    format : by default what the pattern's ending says
    ready : the file that says that a day is complete; by default ``_SUCCESS`` in the innermost folder named for the day
    delimiter : of a csv
    optional : whether a complete day may have no file of this table

    >>> table = MappedTable(files="events/dt={day}/*.json.gz", select="SELECT line->>'id' AS request_id FROM files")
    >>> table.format, table.ready
    ('jsonl', 'events/dt={day}/_SUCCESS')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: str
    select: str = ""
    format: Literal["", "parquet", "csv", "jsonl"] = Field("", validate_default=True)
    ready: str = Field("", validate_default=True)
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    optional: bool = False
    # For messages; not of the spec's tree, so the place of the SQL's file is no part of any hash.
    sql_file: str = Field("", exclude=True)

    @field_validator("files")
    @classmethod
    def _is_a_pattern(cls, files: str) -> str:
        return _relative(files)

    @field_validator("select")
    @classmethod
    def _is_text(cls, select: str) -> str:
        if is_path(select):
            raise _fault("the text of the SQL; a path is read where a spec file names it")
        return select

    @field_validator("format")
    @classmethod
    def _is_known(cls, kind: str, facts: ValidationInfo) -> str:
        files = facts.data.get("files", "x.parquet")
        found = kind or _ENDINGS.get(PurePosixPath(files.removesuffix(".gz")).suffix, "")
        if not found:
            raise _fault(f'format = "parquet", "csv" or "jsonl": the ending of {files!r} says none')
        if found != "parquet" and not facts.data.get("select", "x"):
            raise _fault(f"a select for files of format {found}")
        return found

    @field_validator("ready")
    @classmethod
    def _is_a_file(cls, ready: str, facts: ValidationInfo) -> str:
        if not ready:
            return _beside(facts.data.get("files", f"{DAY}/x"))
        if "*" in ready or "?" in ready:
            raise _fault("one file's name, without * or ?")
        return _relative(ready)


def is_path(select: str) -> bool:
    """Say whether a ``select`` is the path of a file with the SQL.

    >>> is_path("sql/impressions.sql"), is_path("SELECT * FROM files")
    (True, False)
    """
    return select.strip().lower().endswith(".sql") and "\n" not in select.strip()


def keys_beside(key: str) -> list[str]:
    """Return the known keys of the mapped table that a dotted key is of; none for a key of anything else."""
    table, _, _ = key.rpartition(".")
    return [f"{table}.{name}" for name in KEYS] if table.startswith("source.tables.") else []


def flattened(tables: Any) -> Any:
    """Return tables with ``[source.tables.features.<view>]`` as ``features.<view>``, however TOML nested them.

    >>> flattened({"features": {"stats": {"files": "{day}.parquet"}}})
    {'features.stats': {'files': '{day}.parquet'}}
    """
    if not isinstance(tables, Mapping) or not isinstance(tables.get("features"), Mapping):
        return tables
    found = {name: table for name, table in tables.items() if name != "features"}
    for view, table in tables["features"].items():
        below = found.get(f"features.{view}")
        mergeable = isinstance(below, Mapping) and isinstance(table, Mapping)
        found[f"features.{view}"] = {**dict(below or {}), **table} if mergeable else table
    return found


def with_sql_texts(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a spec's tree with the text of each SQL file in the place of its path.

    folder : what the paths are relative to

    Raises Refused for a file that cannot be read.
    """
    source = tree.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("tables"), Mapping):
        return tree
    tables = {name: _with_text(table, folder) for name, table in flattened(source["tables"]).items()}
    return tree | {"source": source | {"tables": tables}}


def _with_text(table: Any, folder: Path) -> Any:
    select = table.get("select") if isinstance(table, Mapping) else None
    if not isinstance(select, str) or not is_path(select):
        return table
    path = folder / select.strip()
    try:
        return {**table, "select": path.read_text(encoding="utf-8"), "sql_file": select.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(what="cannot read a table's SQL", got=f"{path}: {error}", wanted="a text file in UTF-8",
                      remedy="a path in select is relative to the spec that names it") from None  # fmt: skip


def _known(name: str) -> str:
    if name in NAMES or VIEW.fullmatch(name):
        return name
    near = difflib.get_close_matches(name, [*NAMES, "features.<view>"], n=1, cutoff=0.5)
    raise _fault(f"{near[0]!r} (the nearest known)" if near else f"one of: {', '.join(NAMES)}, features.<view>")


def _relative(pattern: str) -> str:
    parts = pattern.split("/")
    if not all(parts) or ".." in parts or "." in parts or "\\" in pattern:
        raise _fault("a pattern relative to source.uri, its parts between single slashes")
    if DAY not in pattern or set("{}[]") & set(pattern.replace(DAY, "")) or "**" in pattern:
        raise _fault('a pattern of *, ? and {day}, as in "events/dt={day}/*.json.gz"')
    return pattern


def _beside(files: str) -> str:
    *folders, _ = files.split("/")
    for depth in range(len(folders), 0, -1):
        if DAY in folders[depth - 1] and not set("*?") & set("".join(folders[:depth])):
            return "/".join([*folders[:depth], SUCCESS])
    raise _fault('ready = "...{day}...": the file that says that a day is complete, where no folder is named for it')


def _fault(wanted: str) -> PydanticCustomError:
    return PydanticCustomError("mapped_table", "{wanted}", {"wanted": wanted})


TableName = Annotated[str, AfterValidator(_known)]
MappedTables = Annotated[dict[TableName, MappedTable], BeforeValidator(flattened)]
