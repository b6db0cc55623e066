"""The profile of one day of arrival: counts by table, and its requests one by one, so that days can be added up.

It depends on the day's rows and on which of them stand, so a day that nothing later touched is looked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

import polars as pl

from sameworld.store.artifacts import Artifact, fingerprint_of
from sameworld.store.log import TABLES, VIEW_PREFIX, Log
from sameworld.store.times import parse_day

KEY = ("request_id", "item_id")
REQUEST = "request"  # a request's 64-bit hash
_INSTANT = pl.Datetime("us", "UTC")
Row = dict[str, Any]


@dataclass(frozen=True)
class StandingDay:
    """One day of arrival with the rows that stand as of the cutoff."""

    log: Log

    @classmethod
    def each(cls, log: Log) -> list[StandingDay]:
        """Return the log's days, oldest first."""
        by_day = {key[0]: rows for key, rows in log.gone.partition_by("day", as_dict=True).items()}
        days = [(day, parse_day(day.record["day"])) for day in log.days]
        return [cls(replace(log, days=(day,), gone=by_day.get(at, log.gone.clear()))) for day, at in days]

    @property
    def day(self) -> date:
        """The day of arrival."""
        return parse_day(self.log.days[0].record["day"])

    @cached_property
    def fingerprint(self) -> str:
        """The hash over the day and what no longer stands of it."""
        gone = self.log.gone.select("table", "row", "reason").sort("table", "row").rows()
        return fingerprint_of({"day": self.log.days[0].fingerprint, "gone": gone})

    def counts(self, requests: int) -> Row:
        """Return rows, groups (distinct requests; rows in a view) and nulls by feature of each table, and the kinds.

        requests : how many there are of the impressions
        """
        tables = [name for name in TABLES if self.log.has(name)] + [f"{VIEW_PREFIX}{name}" for name in self.log.views()]
        found: Row = {name: self._counted(name) for name in tables if name != "impressions"}
        if "impressions" in tables:
            found["impressions"] = self._counted("impressions", pl.lit(requests))
        kinds: dict[str, int] = {}
        if self.log.has("outcomes"):
            kind = pl.col("kind").cast(pl.String)
            rows = self.log.table("outcomes").group_by(kind).len().sort("kind").collect(engine="streaming")
            kinds = dict(rows.iter_rows())
        return {"tables": found, "kinds": kinds}

    def requests(self) -> pl.DataFrame:
        """Return one row a request of the day's impressions, sorted by its hash (see ``by_request``)."""
        if not self.log.has("impressions"):
            return by_request(
                pl.LazyFrame(schema=dict.fromkeys(KEY, pl.String) | {"position": pl.Int32, "shown_at": _INSTANT})
            )
        return by_request(self.log.table("impressions"))

    def _counted(self, table: str, groups: pl.Expr | None = None) -> Row:
        frame = self.log.table(table)
        schema = frame.collect_schema()
        if groups is None:
            groups = pl.col("request_id").n_unique() if "request_id" in schema else pl.len()
        features = [name for name in schema if name.startswith("x_")] if table == "impressions" else []
        nulls = [missing(name, schema[name]).sum().alias(name) for name in features]
        row = frame.select(pl.len().alias("rows"), groups.alias("groups"), *nulls).collect(engine="streaming").row(0)
        return {"rows": row[0], "groups": row[1], "nulls": dict(zip(features, row[2:], strict=True))}


def missing(name: str, dtype: pl.DataType) -> pl.Expr:
    """Say where a column has no value: null, and in a float also NaN."""
    column = pl.col(name)
    return column.is_null() | column.is_nan().fill_null(value=False) if dtype.is_float() else column.is_null()


def by_request(impressions: pl.LazyFrame) -> pl.DataFrame:
    """Return REQUEST, rows, repeated (rows whose item came before), first and last position, and shown_at (earliest).

    Sorted by REQUEST, then by what was counted: bytes do not depend on the order of grouping.
    """
    position = pl.col("position")
    found = impressions.group_by("request_id").agg(
        rows=pl.len(),
        repeated=pl.len() - pl.col("item_id").n_unique(),
        first=position.min(),
        last=position.max(),
        shown_at=pl.col("shown_at").min(),
    )
    named = found.select(pl.col("request_id").hash(seed=1).alias(REQUEST), pl.exclude("request_id"))
    return named.collect(engine="streaming").sort(REQUEST, "shown_at", "rows", "repeated", "first", "last")


def request_counts(view: Log, days: Sequence[Artifact], *, settled_before: datetime) -> Row:
    """Add the days' requests up: how many, their rows, repeated keys, gaps (young_gaps: may still fill), the oldest.

    days : the profiles of the log's days. A request of several days, or one whose hash another has, is looked at again
        by its id.
    """
    requests = pl.concat([day.scan("requests") for day in days]).collect(engine="streaming")
    torn = requests.filter(pl.col(REQUEST).is_duplicated())[REQUEST].unique()
    if len(torn):
        rows = view.table("impressions").select(*KEY, "position", "shown_at")
        again = by_request(rows.filter(pl.col("request_id").hash(seed=1).is_in(torn.implode())))
        requests = pl.concat([requests.filter(~pl.col(REQUEST).is_in(torn.implode())), again])
    # A log without lists gives each row its place on the page: nothing is missing above it.
    gap = ((pl.col("first") != 1) | (pl.col("last") != pl.col("rows"))) & (pl.col("rows").max() > 1)
    counted = requests.select(
        requests=pl.len(),
        log_rows=pl.col("rows").sum(),
        repeated_keys=pl.col("repeated").sum(),
        gaps=(gap & (pl.col("shown_at") < settled_before)).sum(),
        young_gaps=(gap & (pl.col("shown_at") >= settled_before)).sum(),
        oldest=pl.col("shown_at").min(),
    )
    return counted.row(0, named=True)


def daily_counts(days: Sequence[Artifact], table: str) -> pl.DataFrame:
    """Return arrival_day, rows, groups and, by feature, ``null <name>``, of the days that have the table.

    A day whose files lack a feature has null in all its rows.
    """
    found = {parse_day(one.record["day"]): one.record["tables"].get(table) for one in days}
    there = {day: counts for day, counts in sorted(found.items()) if counts is not None}
    features = list(dict.fromkeys(name for counts in there.values() for name in counts["nulls"]))
    rows = [
        {
            "arrival_day": day,
            "rows": counts["rows"],
            "groups": counts["groups"],
            **{f"null {name}": counts["nulls"].get(name, counts["rows"]) for name in features},
        }
        for day, counts in there.items()
        if counts["rows"]
    ]
    schema = {"arrival_day": pl.Date, "rows": pl.Int64, "groups": pl.Int64}
    return pl.DataFrame(rows, schema=schema | {f"null {name}": pl.Int64 for name in features})


def kind_counts(days: Sequence[Artifact]) -> dict[str, int]:
    """Add up the outcomes by kind."""
    found: dict[str, int] = {}
    for one in days:
        for kind, rows in one.record["kinds"].items():
            found[kind] = found.get(kind, 0) + rows
    return found
