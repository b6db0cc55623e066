"""Builds drops of a few rows: each builder returns a sound row that a test changes in the one thing it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log import Log
from tasks import ingest, resolve

Row = dict[str, Any]
INSTANT = pa.timestamp("us", tz="UTC")
CANDIDATES = pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float64())]))
TYPES: dict[str, pa.DataType] = {
    "position": pa.int32(),
    "propensity": pa.float64(),
    "value": pa.float64(),
    "retracted": pa.bool_(),
    "candidates": CANDIDATES,
    "null_reason": pa.map_(pa.string(), pa.string()),
    "x_price": pa.float32(),
    **dict.fromkeys(("shown_at", "happened_at", "arrived_at", "available_at"), INSTANT),
}


def at(day: int, hours: float = 12.0, *, microseconds: int = 0) -> datetime:
    """Return a time of March 2026."""
    return datetime(2026, 3, day, tzinfo=UTC) + timedelta(hours=hours, microseconds=microseconds)


def request(name: str = "r1", **changes: Any) -> Row:
    """Return a request shown and landed on March 1."""
    return {"request_id": name, "user_id": "u1", "shown_at": at(1, 10), "arrived_at": at(1, 11), **changes}


def impression(item: str = "a", position: int = 1, **changes: Any) -> Row:
    """Return an impression shown at 10:00 and landed at 11:00 on March 1."""
    row = {"request_id": "r1", "item_id": item, "user_id": "u1", "position": position, "propensity": 0.5}
    return row | {"shown_at": at(1, 10), "arrived_at": at(1, 11), "x_price": 1.5} | changes


def outcome(item: str = "a", **changes: Any) -> Row:
    """Return a click at 10:30, landed at 12:00 on March 1."""
    row = {"request_id": "r1", "item_id": item, "kind": "click", "value": 1.0, "retracted": False}
    return row | {"happened_at": at(1, 10.5), "arrived_at": at(1, 12)} | changes


def table_of(rows: Sequence[Row], types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """Return rows as an Arrow table; columns without a stated type are strings."""
    kinds = TYPES | dict(types or {})
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()})


def write_day(drop: Path, day: int, **tables: Sequence[Row] | pa.Table) -> Path:
    """Write tables (``features__stats`` for ``features/stats``) and ``_SUCCESS`` into a day's folder."""
    folder = drop / f"day=2026-03-{day:02d}"
    for name, rows in tables.items():
        place = folder / name.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        content = rows if isinstance(rows, pa.Table) else table_of(rows)
        pq.write_table(content, place / f"part-{len(list(place.iterdir()))}.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_SUCCESS").touch()
    return folder


def spec_of(drop: Path | str, **source: Any) -> Spec:
    """Return a spec that reads this drop."""
    tree = {"source": {"uri": str(drop), **source}, "label": {"gains": {"click": 1.0}, "target": "click"}}
    return Spec.parse(tree)


def end_of(day: int) -> str:
    """Return the cutoff of a day of March 2026."""
    return at(day + 1, 0).isoformat()


def store_beside(drop: Path) -> Store:
    """Return the store in the folder beside a drop."""
    return Store(str(drop.parent / "root"))


def take_in(drop: Path, day: int, **options: Any) -> list[Artifact]:
    """Ingest a drop up to a day, into the root beside it."""
    store = store_beside(drop)
    return [store.open(uri) for uri in ingest.run(store=store, spec=spec_of(drop), cutoff=end_of(day), **options)]


def resolved(drop: Path, day: int, **options: Any) -> Artifact:
    """Ingest and resolve a drop as of a day's end, in the root beside it."""
    store, days = store_beside(drop), [one.uri for one in take_in(drop, day, **options)]
    return store.open(resolve.run(store=store, spec=spec_of(drop), cutoff=end_of(day), days=days))


def log_of(drop: Path, day: int) -> Log:
    """Return the log of a drop as of a day's end."""
    return Log.open(resolved(drop, day), store_beside(drop))


def sums_of_day(drop: Path, table: str, day: int = 1) -> dict[str, Any]:
    """Return a table's sums as the last day by itself has them."""
    sums: dict[str, Any] = take_in(drop, day)[-1].record["tables"][table]
    return sums


def sums_of_log(drop: Path, table: str, day: int) -> dict[str, Any]:
    """Return a table's sums over the whole log as of a day's end."""
    sums: dict[str, Any] = resolved(drop, day).record["tables"][table]
    return sums


def sums(rows_in: int, *, duplicates: int = 0, conflicts: int = 0, **quarantined: int) -> dict[str, Any]:
    """Return the sums of a table; what is not said was kept."""
    kept = rows_in - duplicates - conflicts - sum(quarantined.values())
    return {"rows_in": rows_in, "kept": kept, "duplicates": duplicates, "conflicts": conflicts,
            "quarantined": quarantined}  # fmt: skip


def change_price(drop: Path, day: int) -> None:
    """Rewrite a day's impressions with another price."""
    [file] = (drop / f"day=2026-03-{day:02d}" / "impressions").iterdir()
    rows = pq.ParquetFile(file).read().to_pylist()
    pq.write_table(table_of([row | {"x_price": 99.0} for row in rows]), file)
