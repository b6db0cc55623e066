"""The marks of a day's rows: the narrow columns by which a later look at the whole log tells which rows stand.

Marks depend on one day's rows alone, so they are made once and kept. ``rows.<table>`` has a row for each of the day's
rows, in their order; ``groups.<table>`` the groups in which rows can contend; ``lags.<table>`` how long they took to
land, where other tables wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from sameworld.sources.contract import Layout
from sameworld.sources.standing import key_hash
from sameworld.store.artifacts import Artifact, fingerprint_of

# Rows of one key, and rows that may take each other's place, are of one group; where there is none, the key is.
GROUPS = {"impressions": ("request_id",), "outcomes": ("request_id", "item_id")}
PARENTS = ("requests", "impressions")  # the tables whose rows others wait for
KIND, RETRACTED = "kind", "retracted"


@dataclass(frozen=True)
class Unmarked:
    """A day whose rows are to be marked, and its tables' layouts; a view's key is what all days together name."""

    day: Artifact
    layouts: Mapping[str, Layout]

    @cached_property
    def fingerprint(self) -> str:
        """The hash over the day and its tables' keys."""
        return fingerprint_of({"day": self.day.fingerprint, "keys": {n: list(one.key) for n, one in self._own.items()}})

    def marks(self) -> dict[str, pl.DataFrame]:
        """Return the marks of every table of the day, by name."""
        found = {}
        for name, layout in self._own.items():
            rows = _marked(self.day.scan(name), layout)
            found[f"rows.{name}"] = rows
            found[f"groups.{name}"] = _groups(rows, contested=self._contested(name, len(rows)))
            if name in PARENTS:
                found[f"lags.{name}"] = rows.group_by("lag").agg(rows=pl.len()).sort("lag")
        return found

    @property
    def _own(self) -> dict[str, Layout]:
        there = {name: layout for name, layout in self.layouts.items() if f"{name}.parquet" in self.day.files}
        return dict(sorted(there.items()))

    def _contested(self, table: str, rows: int) -> bool:
        """Say whether the day itself found rows of the table that may not stand."""
        return rows > int(self.day.record["tables"][table]["kept"])


def _marked(rows: pl.LazyFrame, layout: Layout) -> pl.DataFrame:
    absent = sorted(set(layout.key) - set(rows.collect_schema().names()))
    rows = rows.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    wanted = {"key": key_hash(layout.key)}
    if layout.name in GROUPS:
        wanted["group"] = key_hash(GROUPS[layout.name])
    if layout.name == "impressions":
        wanted["spot"] = key_hash(("request_id", "position"))
    if layout.event:
        wanted |= {"event": pl.col(layout.event), "lag": pl.col("arrived_at") - pl.col(layout.event)}
    if layout.name == "outcomes":
        wanted |= {name: pl.col(name) for name in (KIND, RETRACTED)}
    return rows.select(**wanted).collect(engine="streaming")


def _groups(marks: pl.DataFrame, *, contested: bool) -> pl.DataFrame:
    """Return the groups of a table's rows, ascending, and in which of them rows contend within the day."""
    group = pl.col("group" if "group" in marks.columns else "key").alias("group")
    shares = [pl.col(name).is_duplicated() for name in ("key", "spot") if name in marks.columns]
    within = pl.any_horizontal(shares) if contested else pl.lit(value=False)
    rows = marks.select(group, within=within)
    found = rows.select("group").unique().sort("group")
    return found.with_columns(within=pl.col("group").is_in(rows.filter("within")["group"].unique().implode()))
