"""A look at a drop: what its newest days hold, for whoever writes the first spec for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.records import Blocked, NotYet, Refused
from sameworld.sources.contract import FeatureKind
from sameworld.sources.drop import Drop, DropFile
from sameworld.sources.tables import READ_ERRORS, Table, read_table
from sameworld.store.log import VIEW_PREFIX
from sameworld.store.times import day_end, day_start

DAYS = 30  # the newest ones are looked at
ROWS = 2_000_000  # of impressions; of more, a share of the requests is looked at
KEY = ("request_id", "item_id")
MAX_CONSTANT, MAX_NULL_SHARE = 1, 0.5
ID_LIKE_VALUES, ID_LIKE_SHARE, MANY_VALUES = 100, 0.1, 10_000
SEGMENT_VALUES = 8
ENOUGH_OLD = 50  # outcomes of the older half; with fewer the younger half's count as well


@dataclass(frozen=True)
class FeatureLook:
    """A served column: what it holds, the share of nulls, distinct values, and what speaks against it, if anything."""

    name: str
    kind: FeatureKind
    null_share: float
    values: int
    doubt: str


@dataclass(frozen=True)
class Outcomes:
    """First outcomes of a kind: how many impressions had one, and the hours each took, sorted.

    by_segment : column -> its values -> hours, for columns of few values
    """

    impressions: int
    hours: NDArray[np.float64]
    by_segment: Mapping[str, Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class DropLook:
    """What a drop holds. ``first``, ``last``: all its complete days; ``days`` of them were looked at.

    users, lists, policy : whether anything tells users apart, whether requests show more than one item, whether
    requests name candidates, tau and epsilon; views : view -> column -> kind
    """

    uri: str
    first: date
    last: date
    days: int
    tables: tuple[str, ...]
    features: tuple[FeatureLook, ...]
    kinds: Mapping[str, Outcomes]
    lag_hours: float
    views: Mapping[str, Mapping[str, FeatureKind]]
    users: bool
    lists: bool
    policy: bool
    propensities: bool


def look_at(uri: str) -> DropLook:
    """Look at the newest days of a drop.

    Raises NotYet where no day is complete, Refused for a drop that the contract does not allow.
    """
    drop = Drop(uri)
    days = drop.days()
    if not days:
        raise NotYet(what="no day of the drop is there yet", got=drop.uri, wanted="day=YYYY-MM-DD with _SUCCESS",
                     remedy="run again once a day has landed")  # fmt: skip
    try:
        tables = _tables(drop, days[-DAYS:])
        return _looked(drop, days, tables)
    except Blocked as blocked:
        raise Refused(what=blocked.what, wanted="a drop as in docs/contract.md", remedy="repair that file") from None
    except READ_ERRORS as error:
        raise Refused(what="the drop cannot be read", got=f"{type(error).__name__}: {error}", wanted="sound Parquet",
                      remedy="write the file again") from error  # fmt: skip


def _looked(drop: Drop, days: Sequence[date], tables: Mapping[str, Table]) -> DropLook:
    shown = _sampled(tables["impressions"], tables["impressions"])
    features = _features(shown, tables["impressions"].features)
    few = [one.name for one in features if one.kind == "string" and 1 < one.values <= SEGMENT_VALUES and not one.doubt]
    events = _sampled(tables["outcomes"], tables["impressions"]).filter(~pl.col("retracted"))
    middle = day_start(days[-DAYS:][0]) + (day_end(days[-1]) - day_start(days[-DAYS:][0])) / 2
    requests = tables["requests"].frame if "requests" in tables else None
    lag = (pl.col("arrived_at") - pl.col("happened_at")).dt.total_microseconds().clip(0).quantile(0.99) / 3.6e9
    return DropLook(
        uri=drop.uri,
        first=days[0],
        last=days[-1],
        days=len(days[-DAYS:]),
        tables=tuple(sorted(tables)),
        features=features,
        kinds=_kinds(shown, events, few, middle),
        lag_hours=float(events.select(lag).collect(engine="streaming").item() or 0.0),
        views={
            name.removeprefix(VIEW_PREFIX): dict(one.features)
            for name, one in sorted(tables.items())
            if name.startswith(VIEW_PREFIX)
        },
        users=any(_any(frame, "user_id") for frame in (shown, requests)),
        lists=_lists(shown),
        policy=all(_any(requests, name) for name in ("candidates", "tau", "epsilon")),
        propensities=_any(shown, "propensity"),
    )


def _tables(drop: Drop, days: Sequence[date]) -> dict[str, Table]:
    files: dict[str, list[DropFile]] = {}
    for day in days:
        for table, found in drop.day(day).files.items():
            files.setdefault(table, []).extend(found)
    for needed in ("impressions", "outcomes"):
        if needed not in files:
            raise Refused(what=f"the drop has no {needed}", got=", ".join(sorted(files)) or "no table",
                          wanted=f"{needed}/*.parquet in its newest {len(days)} days",
                          remedy="docs/contract.md says what an exporter writes")  # fmt: skip
    return {table: read_table(table, found) for table, found in sorted(files.items())}


def _sampled(table: Table, impressions: Table) -> pl.LazyFrame:
    """Return whole requests, so many that the impressions stay within bounds."""
    one_in = -(-sum(impressions.rows) // ROWS)
    return table.frame.filter(pl.col("request_id").hash(seed=3) % one_in == 0) if one_in > 1 else table.frame


def _features(shown: pl.LazyFrame, kinds: Mapping[str, FeatureKind]) -> tuple[FeatureLook, ...]:
    wanted = [pl.len().alias("rows")]
    wanted += [pl.col(name).null_count().alias(f"nulls {name}") for name in kinds]
    wanted += [pl.col(name).drop_nulls().n_unique().alias(f"values {name}") for name in kinds]
    found = shown.select(wanted).collect(engine="streaming").row(0, named=True)
    rows = max(int(found["rows"]), 1)
    looks = []
    for name, kind in kinds.items():
        nulls, values = int(found[f"nulls {name}"]), int(found[f"values {name}"])
        looks.append(FeatureLook(name, kind, nulls / rows, values, _doubt(kind, rows, nulls, values)))
    return tuple(looks)


def _doubt(kind: FeatureKind, rows: int, nulls: int, values: int) -> str:
    """Say what speaks against a feature, or nothing.

    >>> _doubt("string", 1000, 0, 900), _doubt("number", 1000, 600, 9), _doubt("bool", 9, 0, 2)
    ('900 values in 1,000 rows: looks like an id', '60 % null', '')
    """
    if values <= MAX_CONSTANT:
        return "one value only" if values else "null throughout"
    if nulls > MAX_NULL_SHARE * rows:
        return f"{100 * nulls / rows:.0f} % null"
    known = rows - nulls
    if kind == "string" and (values > max(ID_LIKE_VALUES, ID_LIKE_SHARE * known) or values > MANY_VALUES):
        return f"{values:,} values in {known:,} rows: looks like an id"
    return ""


def _kinds(shown: pl.LazyFrame, events: pl.LazyFrame, few: list[str], middle: datetime) -> dict[str, Outcomes]:
    first = events.group_by(*KEY, "kind").agg(pl.col("happened_at").min())
    delay = (pl.col("happened_at") - pl.col("shown_at")).dt.total_microseconds().clip(0) / 3.6e9
    columns = shown.select(*KEY, "shown_at", *few).unique(list(KEY), keep="any")
    joined = first.join(columns, on=list(KEY)).select("kind", "shown_at", *few, hours=delay).collect(engine="streaming")
    if not len(joined):
        raise Refused(what="the drop has no outcome of an impression that it holds", got="none in its newest days",
                      wanted="outcomes with the request_id and item_id of impressions",
                      remedy="compare both tables' ids")  # fmt: skip
    found = {}
    for kind in joined["kind"].unique().sort():
        of_kind = joined.filter(pl.col("kind") == kind)
        # young impressions have had no time for slow outcomes: their delays would look too short
        old = of_kind.filter(pl.col("shown_at") < middle)
        rows = old if len(old) >= ENOUGH_OLD else of_kind
        found[str(kind)] = Outcomes(len(of_kind), _hours(rows), {name: _by_value(rows, name) for name in few})
    return found


def _by_value(rows: pl.DataFrame, column: str) -> dict[str, NDArray[np.float64]]:
    parts = rows.filter(pl.col(column).is_not_null()).partition_by(column, as_dict=True)
    return {str(key[0]): _hours(part) for key, part in sorted(parts.items())}


def _hours(rows: pl.DataFrame) -> NDArray[np.float64]:
    return np.sort(rows["hours"].to_numpy().astype(np.float64))


def _any(frame: pl.LazyFrame | None, name: str) -> bool:
    if frame is None:
        return False
    return bool(frame.select(pl.col(name).is_not_null().any()).collect(engine="streaming").item())


def _lists(shown: pl.LazyFrame) -> bool:
    found = shown.select(rows=pl.len(), requests=pl.col("request_id").n_unique()).collect(engine="streaming")
    return bool(found["rows"][0] > found["requests"][0])
