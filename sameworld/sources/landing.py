"""Writing a drop: one folder a day of arrival, its tables' files, and ``_SUCCESS`` last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import polars as pl

from sameworld.records import Refused


def want_empty(out: Path) -> None:
    """Raise Refused if a drop, or anything else, is there already: days are never mixed."""
    if out.exists() and any(out.iterdir()):
        raise Refused(what="the drop's folder is not empty", got=str(out), wanted="an empty or a new folder",
                      remedy="give another folder, or remove this one")  # fmt: skip


def land(tables: Mapping[str, pl.DataFrame], out: Path, day: date) -> None:
    """Write a day of the drop: ``<out>/day=YYYY-MM-DD/<table>/part-0.parquet``; a table without rows has no file.

    Rows must have arrived on that day; they are written in the order given.
    """
    folder = out / f"day={day.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        if frame.height:
            (folder / name).mkdir(parents=True)
            frame.write_parquet(folder / name / "part-0.parquet", compression="zstd")
    (folder / "_SUCCESS").touch()
