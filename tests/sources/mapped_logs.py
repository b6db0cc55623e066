"""Builds small logs of a shape of their own; and the example of one, beside the contract's drop of the same rows."""

from __future__ import annotations

import functools
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import polars as pl

from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.drop import DropDay
from sameworld.sources.mapped_drop import MappedDrop
from sameworld.sources.sql_engine import engine_over
from sameworld.spec import SourceSpec, Spec, load_spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log import Log
from tasks import ingest, resolve

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "examples" / "sql_mapping"
BASES = {"baseline": PROJECT / "experiments" / "baseline.toml"}
DAY = date(2026, 3, 1)
CUTOFF = "2026-03-15T00:00:00Z"
TIMES = "shown::TIMESTAMPTZ AS shown_at, shown::TIMESTAMPTZ AS arrived_at"
REQUESTS = f"SELECT id AS request_id, {TIMES} FROM files"
SHOWN = "2026-03-01T10:00:00Z"
_HOLDER = tempfile.TemporaryDirectory(prefix="sameworld-mapped-")


# --- a table of a few rows


def write_csv(drop: Path, text: str = f"id,shown\n007,{SHOWN}\n", *, day: date = DAY, name: str = "a.csv") -> Path:
    """Write a file into a day's folder, and the mark that the day is complete."""
    folder = drop / f"dt={day}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / "_SUCCESS").touch()
    return folder / name


def tree_of(drop: Path, select: str = REQUESTS, *, table: str = "requests", **mapping: Any) -> dict[str, Any]:
    """Return the tree of a spec that maps one table; a pattern of ``dt={day}/*.csv`` unless another is given."""
    tables = {table: {"files": "dt={day}/*.csv", "select": select, **mapping}}
    return {"source": {"uri": str(drop), "tables": tables}, "label": {"gains": {"click": 1.0}, "target": "click"}}


def drop_of(drop: Path, select: str = REQUESTS, **mapping: Any) -> MappedDrop:
    """Open a drop with one mapped table."""
    return MappedDrop(str(drop), Spec.parse(tree_of(drop, select, **mapping)).source.tables)


def rows_of(day: DropDay, table: str = "requests") -> pl.DataFrame:
    """Return the rows that a day has for a table."""
    return pl.concat([pl.read_parquet(file.path) for file in day.files[table]])


def mapped(drop: Path, select: str = REQUESTS, *, table: str = "requests", **mapping: Any) -> pl.DataFrame:
    """Return what a SELECT makes of the first day."""
    return rows_of(drop_of(drop, select, table=table, **mapping).day(DAY), table)


def lines(*rows: object) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- the example


def example_spec(uri: Path | str = EXAMPLE / "log", *changes: str) -> Spec:
    """Return the example's spec over a log, by default the shipped one."""
    return load_spec(EXAMPLE / "spec.toml", changes=[f"source.uri={uri}", *changes], known=BASES)


def example_script() -> ModuleType:
    """Import the script that wrote the example's log."""
    found = importlib.util.spec_from_file_location("make_log", EXAMPLE / "make_log.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@functools.cache
def both_shapes() -> tuple[Path, Path]:
    """Write the example's log afresh, and the contract's drop of the same rows without the view that it leaves out."""
    script, out = example_script(), Path(_HOLDER.name)
    script.main(out / "log")
    for day in write_drop(out / "drop", script.WORLD):
        for file in (out / "drop" / f"day={day}" / "features" / "user_profile").glob("*.parquet"):
            file.unlink()
    return out / "log", out / "drop"


def log_of(root: Path, spec: Spec) -> Log:
    """Ingest and resolve a source into a root."""
    store = Store(str(root))
    days = ingest.run(store=store, spec=spec, cutoff=CUTOFF)
    return Log.open(store.open(resolve.run(store=store, spec=spec, cutoff=CUTOFF, days=days)), store)


def rows_by_key(log: Log, table: str, key: Sequence[str]) -> pl.DataFrame:
    """Return a table of a log, its rows and columns in an order that says nothing of where they came from."""
    rows = log.table(table).collect()
    return rows.select(sorted(rows.columns)).sort(key)


def source_of(drop: Path, select: str = REQUESTS) -> SourceSpec:
    """Return the part of a spec that names a mapped drop."""
    return Spec.parse(tree_of(drop, select)).source


def taken_in(drop: Path, *, write: bool = False) -> list[Artifact]:
    """Ingest a drop's first day into the root beside it."""
    if write:
        write_csv(drop)
    store = Store(str(drop.parent / "root"))
    uris = ingest.run(store=store, spec=Spec.parse(tree_of(drop)), cutoff="2026-03-02T00:00:00Z")
    return [store.open(uri) for uri in uris]


def engine(folder: Path, path: Path) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Open the engine over one file."""
    return engine_over([path], kind="csv", gzipped=False, delimiter=",", day=DAY, scratch=folder / "spill")
