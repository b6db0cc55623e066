"""A file of candidates: read as the contract means its columns, features of views joined, cut into whole requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from sameworld.models.bundle import Bundle
from sameworld.models.features import Feature
from sameworld.models.item_history import history_features
from sameworld.records import Refused
from sameworld.sources.contract import TIME, is_text
from sameworld.sources.tables import READ_ERRORS
from sameworld.store.log import VIEW_PREFIX, Log
from sameworld.store.times import parse_time
from sameworld.store.views import KEYS, feature_name, join_view

IDS = ("request_id", "item_id")
WANTED = {"number": "a float or an int", "bool": "a bool", "category": "a string"}
AT = "sameworld: at"


def open_candidates(path: Path) -> pl.LazyFrame:
    """Return a file's rows, unread; one that is not there, no Parquet, or without its ids is refused."""
    if not path.is_file():
        raise Refused(what="no such file of candidates", got=str(path), wanted="a Parquet file", remedy="check --in")
    try:
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        schema = frame.collect_schema()
    except READ_ERRORS as error:
        raise Refused(what="the candidates are no readable Parquet file", got=f"{path.name}: {_first_line(error)}",
                      wanted="a Parquet file", remedy="write it again") from None  # fmt: skip
    missing = [name for name in IDS if name not in schema]
    if missing:
        raise Refused(what=f"{path.name} lacks {' and '.join(missing)}", got=", ".join(schema), wanted=", ".join(IDS),
                      remedy="name the columns as in docs/contract.md")  # fmt: skip
    return frame


def scored_columns(frame: pl.LazyFrame, features: Sequence[Feature]) -> pl.LazyFrame:
    """Return the columns that scoring reads, each in its own kind; nothing is cast from one kind to another.

    features : the bundle's; those that the file lacks stay absent
    Raises Refused for text where numbers were promised, the reverse, and a time without a zone.
    """
    schema = frame.collect_schema()
    columns = [_text(name, schema[name]) for name in (*IDS, "user_id") if name in schema]
    if "shown_at" in schema:
        columns.append(_time("shown_at", schema["shown_at"]))
    columns += [_feature(one, schema[one.name]) for one in features if one.name in schema]
    return frame.select(columns)


@dataclass(frozen=True)
class ViewJoin:
    """Which features come from which view: view -> its columns. ``absent`` names those that come from nowhere."""

    log: Log | None
    views: Mapping[str, Sequence[str]]
    absent: tuple[str, ...]

    def add(self, rows: pl.LazyFrame, cutoff: datetime) -> pl.LazyFrame:
        """Join the views' values as of ``shown_at``; where that is absent or null, as of the cutoff."""
        if self.log is None or not self.views:
            return rows
        known = rows.collect_schema().names()
        at = pl.col("shown_at").fill_null(cutoff) if "shown_at" in known else pl.lit(cutoff, dtype=TIME)
        rows = rows.with_columns(at.cast(TIME).alias(AT))
        until = parse_time(self.log.resolved.record["cutoff"])
        for view, columns in self.views.items():
            rows = join_view(rows, self.log, view, columns, cutoff=until, at=AT).drop(f"{view}_available_at")
            rows = rows.rename({f"{feature_name(name)}@view": feature_name(name) for name in columns})
        return rows.drop(AT)


def view_join(bundle: Bundle, log: Log | None, known: Sequence[str]) -> ViewJoin:
    """Find out which of the features that a file lacks a view can give it.

    known : the file's columns; a served value goes before a view's, null included
    """
    learned = {feature.name for feature in history_features(bundle.history.kinds)}  # of the bundle itself
    lacking = [feature.name for feature in bundle.features if feature.name not in learned.union(known)]
    views: dict[str, list[str]] = {}
    for view, columns in sorted(bundle.about["views"].items()):
        wanted = [column for column in columns if feature_name(column) in lacking]
        if wanted and log is not None and view in log.views() and set(_keys(log, view)) <= set(known):
            views[view] = wanted
            lacking = [name for name in lacking if name not in {feature_name(column) for column in wanted}]
    return ViewJoin(log, views, tuple(lacking))


def batches(request_id: pl.Series, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows into runs (first row, rows) of about ``most`` rows that hold whole requests.

    A file whose requests lie scattered is one batch: no cut would keep them whole.

    >>> list(batches(pl.Series(["a", "a", "b", "c", "c"]), 2))
    [(0, 2), (2, 1), (3, 2)]
    """
    starts = (request_id != request_id.shift()).fill_null(value=True).arg_true().to_numpy()
    whole = len(starts) == request_id.n_unique()
    ends = np.append(starts[1:], len(request_id)) if whole else np.array([len(request_id)])
    first, done = 0, False
    while not done:
        fitting = int(np.searchsorted(ends, first + most, side="right")) - 1
        next_one = int(np.searchsorted(ends, first, side="right"))  # longer than a batch: one of its own
        end = int(ends[min(max(fitting, next_one), len(ends) - 1)])
        yield first, end - first
        first, done = end, end == len(request_id)


def _keys(log: Log, view: str) -> list[str]:
    names = log.table(f"{VIEW_PREFIX}{view}").collect_schema().names()
    return [key for key in KEYS if key in names]


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    if not (is_text(dtype) or dtype == pl.Null):
        raise _wrong(name, dtype, "a string")
    return pl.col(name).cast(pl.String)


def _time(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Null:
        return pl.col(name).cast(TIME)
    if not isinstance(dtype, pl.Datetime):
        raise _wrong(name, dtype, "timestamp[us, UTC]")
    if dtype.time_zone is None:
        raise Refused(what=f"column {name!r} has timestamps without a zone", got=str(dtype).lower(),
                      wanted="timestamp[us, UTC]", remedy="write them with tz=UTC")  # fmt: skip
    return pl.col(name).cast(TIME)


def _feature(feature: Feature, dtype: pl.DataType) -> pl.Expr:
    fits = {
        "number": dtype.is_numeric() or dtype == pl.Boolean,
        "bool": dtype == pl.Boolean or dtype.is_numeric(),
        "category": is_text(dtype),
    }
    if not (fits[feature.kind] or dtype == pl.Null):
        raise _wrong(feature.name, dtype, WANTED[feature.kind])
    return pl.col(feature.name).cast(pl.String) if is_text(dtype) else pl.col(feature.name)


def _wrong(name: str, dtype: pl.DataType, wanted: str) -> Refused:
    return Refused(what=f"column {name!r} of the candidates has a wrong type", got=str(dtype).lower(), wanted=wanted,
                   remedy="write it as the log had it when the model was trained")  # fmt: skip


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
