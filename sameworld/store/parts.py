"""Tables in day parts: a listing artifact names the parts, each an artifact of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import DelayCurve
from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.times import day_end, day_start, parse_day, parse_time

ALL = "all"


@dataclass(frozen=True)
class Part:
    """One day's part."""

    day: date
    artifact: Artifact


def parts_of(listing: Artifact, store: Store, *, kind: str = "parts") -> list[Part]:
    """Open the parts that a listing names, oldest first."""
    found = []
    for entry in listing.record[kind]:
        artifact = store.find(listing.step, entry["fingerprint"])
        if artifact is None:
            raise Refused(what=f"a part of {listing.step} is gone", got=entry["day"], remedy="run the day again")
        found.append(Part(parse_day(entry["day"]), artifact))
    return found


def labels_of(listing: Artifact, store: Store) -> pl.LazyFrame:
    """Return every label as of the listing's cutoff: with ``closed``, ``age_hours``, ``completeness`` and ``part``."""
    frames = [_with_part(part.artifact.scan("labels"), part.day) for part in parts_of(listing, store)]
    return _as_of(pl.concat(frames, how="diagonal_relaxed"), listing.record)


def example_parts(
    listing: Artifact, store: Store, *, since: datetime | None = None, before: datetime | None = None
) -> list[pl.LazyFrame]:
    """Return the training set as of the listing's cutoff, a day's part each: labels beside features.

    since, before : only days that can hold impressions shown in that span; rows are not filtered
    ``request`` numbers a part's requests; a request's rows stand together.
    """
    frames = []
    labels = {part.day: part.artifact for part in _label_parts(listing, store)}
    for part in parts_of(listing, store):
        if (since is None or day_end(part.day) > since) and (before is None or day_start(part.day) < before):
            beside = [labels[part.day].scan("labels"), part.artifact.scan("features")]
            frames.append(_as_of(_with_part(pl.concat(beside, how="horizontal"), part.day), listing.record))
    return frames


def examples_of(
    listing: Artifact, store: Store, *, since: datetime | None = None, before: datetime | None = None
) -> pl.LazyFrame:
    """Return the training set as of the listing's cutoff (see ``example_parts``); ``request`` is a number a request.

    A request that went on for over an hour past midnight counts as two.
    """
    frames = example_parts(listing, store, since=since, before=before)
    if not frames:
        raise Refused(what="the training set has no day in this span", got=f"{since} to {before}", wanted="one part")
    rows = pl.concat(frames, how="diagonal_relaxed")
    return rows.with_columns(request=pl.struct("part", "request").rle_id())


def _label_parts(listing: Artifact, store: Store) -> list[Part]:
    found = []
    for entry in listing.record["label_parts"]:
        artifact = store.find("label", entry["fingerprint"])
        if artifact is None:
            raise Refused(what="a part of label is gone", got=entry["day"], remedy="run the day again")
        found.append(Part(parse_day(entry["day"]), artifact))
    return found


def _with_part(frame: pl.LazyFrame, day: date) -> pl.LazyFrame:
    return frame.with_columns(part=pl.lit(day))


def _as_of(rows: pl.LazyFrame, record: Mapping[str, Any]) -> pl.LazyFrame:
    """Add what depends on the cutoff: which labels have closed, how old they are, how complete."""
    cutoff = parse_time(str(record["cutoff"]))
    age = (pl.lit(cutoff) - pl.col("shown_at")).dt.total_microseconds() / 3.6e9
    rows = rows.with_columns(closed=pl.col("closes_at") <= cutoff, age_hours=age)
    curves = {name: DelayCurve.from_record(curve) for name, curve in record["curves"].items()}
    return rows.with_columns(
        completeness=pl.struct("age_hours", "segment", "closed").map_batches(
            lambda column: pl.Series(completeness(column.struct.unnest(), curves)),
            return_dtype=pl.Float64,
            is_elementwise=True,
        )
    )


def completeness(table: pl.DataFrame, curves: Mapping[str, DelayCurve]) -> NDArray[np.float64]:
    """Return F(age | segment) of open rows and 1 of closed ones; a segment without a curve takes that of all.

    table : age_hours, segment and closed
    """
    closed, age = table["closed"].to_numpy(), table["age_hours"].to_numpy()
    result = np.ones(len(table))
    if closed.all() or not curves:
        return result
    for segment in table.filter(~pl.col("closed"))["segment"].unique().sort():
        chosen = ~closed & (table["segment"] == segment).to_numpy()
        curve = curves.get(segment, curves.get(ALL))
        if curve is not None:
            result[chosen] = curve.at(age[chosen])
    return result


def usable_curves(curves: Mapping[str, Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """Return the curves that could be fitted, by segment; those that could not are left to the curve of all."""
    return {name: curve for name, curve in curves.items() if "cannot" not in curve}


def summed(records: Sequence[Mapping[str, int]], names: Sequence[str]) -> dict[str, int]:
    """Return the sums of counts over parts."""
    return {name: sum(int(record[name]) for record in records) for name in names}
