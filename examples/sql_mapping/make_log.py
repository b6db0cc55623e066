"""Writes this example's log: a small simulated shop, in the shape that such a shop's own services might write.

    python examples/sql_mapping/make_log.py OUT

The same rows go out as any exporter of the contract would write them; only names, nesting and formats differ.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters

WORLD = WorldParameters(
    seed=11, days=14, requests_per_day=60, users=120, items=40, candidates=8, slots=5, window_days=2.0,
    fast_delay_days=0.25, slow_delay_days=1.0, purchase_lag_hours=2.0, click_intercept=-0.8, purchase_intercept=-0.4,
    candidates_share=0.25,
)  # fmt: skip
BERLIN = ZoneInfo("Europe/Berlin")
ACTIONS = {"click": "clk", "purchase": "buy"}


def main(out: Path) -> None:
    """Write the log below a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        drop = Path(folder) / "drop"
        for day in write_drop(drop, WORLD):
            write_day(drop / f"day={day}", out, day.isoformat())


def write_day(day: Path, out: Path, name: str) -> None:
    """Write one day of the drop as the shop's services do."""
    write_events(day, out / "events" / f"dt={name}")
    write_actions(day, out / "actions" / f"{name}.csv")
    write_stats(day, out / "nightly" / name / "items.parquet")


def write_events(day: Path, folder: Path) -> None:
    """Write the ranking server's events, one JSON a line, and the mark that says that no more will come."""
    events = [*ranked_events(day), *shown_events(day)]
    folder.mkdir(parents=True)
    # no time and no name in the header: the same events are the same bytes
    with (
        (folder / "server-0.json.gz").open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream,
    ):
        stream.write("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode())
    (folder / "_DONE").touch()


def ranked_events(day: Path) -> list[dict[str, object]]:
    """Return an event a request: who asked, how the order was drawn, every candidate with its score."""
    served = {
        (row["request_id"], row["item_id"]): features_of(row) for row in read(day, "candidates").iter_rows(named=True)
    }
    return [
        {
            "event": "ranked",
            "at": iso(row["shown_at"]),
            "logged": iso(row["arrived_at"]),
            "request": {"id": row["request_id"], "user": row["user_id"], "page": row["surface"]},
            "policy": {name: row[name] for name in ("policy_id", "model_version", "branch", "tau", "epsilon", "seed")},
            "candidates": [
                {"sku": one["item_id"], "score": one["score"], **served.get((row["request_id"], one["item_id"]), {})}
                for one in row["candidates"]
            ],
        }
        for row in read(day, "requests").iter_rows(named=True)
    ]


def shown_events(day: Path) -> list[dict[str, object]]:
    """Return an event a page: its items from the top, with their features as served."""
    pages = read(day, "impressions").sort("arrived_at", "request_id", "position").partition_by("request_id")
    return [
        {
            "event": "shown",
            "at": iso(rows[0, "shown_at"]),
            "logged": iso(rows[0, "arrived_at"]),
            "request": {"id": rows[0, "request_id"], "user": rows[0, "user_id"]},
            "items": [
                {"sku": row["item_id"], "p": row["propensity"], **features_of(row)}
                for row in rows.iter_rows(named=True)
            ],
        }
        for rows in pages
    ]


def features_of(row: dict[str, Any]) -> dict[str, object]:
    """Return a row's features, and why those that are null are."""
    features = {name.removeprefix("x_"): value for name, value in row.items() if name.startswith("x_")}
    why = row["null_reason"]
    return {"features": features, **({"missing": dict(why)} if why else {})}


def write_actions(day: Path, path: Path) -> None:
    """Write what people did as a CSV of the shop's own words, its times in Berlin's; a day may have none."""
    lines = [
        [row["request_id"], row["item_id"], ACTIONS[row["kind"]], local(row["happened_at"]), local(row["arrived_at"])]
        for row in read(day, "outcomes").iter_rows(named=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(";".join(line) for line in [["req", "sku", "action", "done", "logged"], *lines]) + "\n")


def write_stats(day: Path, path: Path) -> None:
    """Write the nightly statistics of items; they say from which hour (UTC) of their day on they could be read."""
    names = {"item_id": "sku", "item_ctr": "click_rate", "item_buy_rate": "buy_rate", "item_clicks": "clicks"}
    path.parent.mkdir(parents=True)
    hour = pl.col("available_at").dt.hour().alias("from_hour")
    read(day, "features/item_stats").rename(names).select(*names.values(), hour).write_parquet(path)


def read(day: Path, table: str) -> pl.DataFrame:
    """Return a table of a day of the drop; where it has no file, no rows."""
    files = sorted((day / table).glob("*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files]) if files else pl.DataFrame()


def iso(moment: datetime) -> str:
    """Write a time as ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def local(moment: datetime) -> str:
    """Write a time as Berlin's clocks showed it, without saying so."""
    return moment.astimezone(BERLIN).strftime("%d.%m.%Y %H:%M:%S.%f")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
