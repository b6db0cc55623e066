"""An independent reading of the contract's section 1: what a drop must look like, checked with pyarrow alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TIME = pa.timestamp("us", tz="UTC")
WANTED = {  # by table: column to (type check, required, may be null)
    "requests": {
        "request_id": ("text", False), "shown_at": ("time", False), "arrived_at": ("time", False),
        **dict.fromkeys(("user_id", "surface", "arm", "policy_id", "model_version", "branch"), ("text", True)),
        "tau": ("double", True), "epsilon": ("double", True), "seed": ("int64", True),
        "candidates": ("candidates", True),
    },
    "impressions": {
        "request_id": ("text", False), "item_id": ("text", False), "user_id": ("text", True),
        "position": ("int32", False), "shown_at": ("time", False), "arrived_at": ("time", False),
        "propensity": ("double", True),
        "null_reason": ("reasons", True),
    },
    "candidates": {
        "request_id": ("text", False), "item_id": ("text", False), "arrived_at": ("time", False),
        "null_reason": ("reasons", True),
    },
    "outcomes": {
        "request_id": ("text", False), "item_id": ("text", False), "kind": ("text", False), "value": ("double", True),
        "happened_at": ("time", False), "arrived_at": ("time", False), "retracted": ("bool", True),
    },
}  # fmt: skip
KEYS = {
    "requests": ("request_id",),
    "impressions": ("request_id", "item_id"),
    "candidates": ("request_id", "item_id"),
    "outcomes": ("request_id", "item_id", "kind", "happened_at"),
}
MAY_MISS = {"user_id", "surface", "arm", "policy_id", "model_version", "branch", "tau", "epsilon", "seed", "candidates",
            "propensity", "null_reason", "value", "retracted"}  # fmt: skip


def text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_candidates(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    names = {field.name: field.type for field in kind.value_type}
    return set(names) == {"item_id", "score"} and text(names["item_id"]) and names["score"] == pa.float64()


FEATURES = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, text)
CHECKS = {
    "text": text,
    "time": TIME.equals,
    "double": pa.types.is_float64,
    "int32": pa.types.is_int32,
    "int64": pa.types.is_int64,
    "bool": pa.types.is_boolean,
    "reasons": lambda kind: pa.types.is_map(kind) and text(kind.key_type) and text(kind.item_type),
    "candidates": is_candidates,
}


def read(drop: Path, table: str, columns: tuple[str, ...] | None = None) -> pa.Table:
    """Every row of a table, day after day."""
    return pa.concat_tables(
        [pq.ParquetFile(path).read(columns) for path in sorted(drop.glob(f"day=*/{table}/*.parquet"))]
    )


def problems(drop: Path) -> list[str]:
    """Everything in this drop that breaks the contract, in words."""
    found = [f"{day.name}: no _SUCCESS" for day in sorted(drop.iterdir()) if not (day / "_SUCCESS").is_file()]
    for path in sorted(drop.glob("day=*/**/*.parquet")):
        day, table = path.relative_to(drop).parts[0], "/".join(path.relative_to(drop).parts[1:-1])
        rows = pq.ParquetFile(path).read()
        say = f"{day}/{table}: "
        found += [say + words for words in columns_that_break(table, rows)]
        found += [say + words for words in times_that_break(rows, date.fromisoformat(day.removeprefix("day=")))]
    for table, key in KEYS.items():
        rows = read(drop, table, key) if any(drop.glob(f"day=*/{table}/*.parquet")) else None
        if rows is not None and rows.group_by(list(key)).aggregate([]).num_rows != rows.num_rows:
            found.append(f"{table}: {key} is not unique")
    return found


def columns_that_break(table: str, rows: pa.Table) -> list[str]:
    view = table.startswith("features/")
    wanted = {"available_at": ("time", False)} if view else WANTED[table]
    found = [f"lacks {name}" for name in wanted if name not in rows.column_names and name not in MAY_MISS]
    for name in rows.column_names:
        column = rows[name]
        if name in wanted:
            check, nullable = wanted[name]
            found += [f"{name} is {column.type}"] * (not CHECKS[check](column.type))
            found += [f"{name} has nulls"] * (not nullable and column.null_count > 0)
        elif name.startswith("x_") or view:
            found += [f"{name} is {column.type}"] * (not any(check(column.type) for check in FEATURES))
        else:
            found.append(f"unknown column {name}")
    return found


def times_that_break(rows: pa.Table, day: date) -> list[str]:
    arrived = rows["arrived_at" if "arrived_at" in rows.column_names else "available_at"]
    found = ["arrived on another day"] * any(value.as_py() != day for value in pc.unique(pc.cast(arrived, pa.date32())))
    for name in ("shown_at", "happened_at"):
        if name in rows.column_names and rows[name].type == TIME and pc.any(pc.greater(rows[name], arrived)).as_py():
            found.append(f"{name} after its arrival")
    return found
