"""What becomes of each row of one day's table: kept, duplicate, or quarantined for a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from sameworld.records import Blocked
from sameworld.sources.contract import Kind, Layout
from sameworld.sources.row_checks import MAX_TEXT_BYTES, REASONS, first_reason
from sameworld.sources.standing import (
    ARRIVED,
    CONFLICT,
    DUPLICATE,
    PLACE,
    SAME_ARRIVAL,
    TAKEN,
    key_hash,
    losers,
    taken,
)
from sameworld.sources.tables import Table
from sameworld.store.times import day_start

QUARANTINE = {"table": pl.String, "file": pl.String, "row": pl.Int64, "reason": pl.String, "content": pl.String}
MAX_SHOWN = 1024  # characters of a text, entries of a list, that quarantine keeps of a row
# A later day can change these, so such rows stay in the day's file; ``resolve`` has the last word.
OPEN_FATES = (CONFLICT, SAME_ARRIVAL, TAKEN)
_FATES = (*REASONS, DUPLICATE, *OPEN_FATES)
# Names that no column of a drop has.
_FATE, _FILE, _ROW, _BAD = "sameworld: fate", "sameworld: file", "sameworld: row", "sameworld: bad"


@dataclass(frozen=True)
class DayTable:
    """A table of one day, and the fate of its rows: a place in the list of fates, null for a row that stands."""

    table: Table
    fate: pl.Series

    @property
    def sums(self) -> dict[str, Any]:
        """Rows in, kept, duplicates, conflicts and quarantined by reason, as the day by itself has them."""
        counts = dict(self.fate.drop_nulls().value_counts().sort(_FATE).iter_rows())
        named = {_FATES[place]: count for place, count in counts.items()}
        quarantined = {name: count for name, count in named.items() if name not in (DUPLICATE, CONFLICT)}
        return {
            "rows_in": len(self.fate),
            "kept": self.fate.null_count(),
            "duplicates": named.get(DUPLICATE, 0),
            "conflicts": named.get(CONFLICT, 0),
            "quarantined": dict(sorted(quarantined.items())),
        }

    def kept(self) -> pl.LazyFrame:
        """Return the rows of the day's file, in the drop's order: those that stand, or may yet."""
        stays = self.fate.is_null() | self.fate.is_in(_places(OPEN_FATES))
        rows = self.table.frame.select(self.table.columns)
        if stays.all():
            return rows
        return pl.concat([rows, stays.to_frame().lazy()], how="horizontal").filter(_FATE).drop(_FATE)

    def quarantine(self) -> pl.LazyFrame:
        """Return the rows in quarantine with the hash of their file, their row in it (from 0) and their content."""
        bad = self.fate.is_not_null() & ~self.fate.is_in(_places((DUPLICATE, CONFLICT)))
        if not bad.any():
            return pl.LazyFrame(schema=QUARANTINE)
        number = np.repeat(np.arange(len(self.table.files), dtype=np.uint32), self.table.rows)
        first = np.cumsum([0, *self.table.rows[:-1]])
        place = np.arange(len(number), dtype=np.int64)
        marks = pl.LazyFrame({_FATE: self.fate, _FILE: number, _ROW: place - first[number], _BAD: bad})
        rows = pl.concat([self.table.frame.select(self.table.columns), marks], how="horizontal").filter(_BAD)
        return rows.select(
            table=pl.lit(self.table.layout.name),
            file=_named(_FILE, [file.sha256 for file in self.table.files]),
            row=_ROW,
            reason=_named(_FATE, _FATES),
            content=pl.struct(*_legible(self.table)).struct.json_encode(),
        )


def judge(table: Table, day: date, max_skew: timedelta) -> DayTable:
    """Judge every row of a day's table: by itself, then beside the others of the day.

    max_skew : by how much an outcome may arrive before it happened
    Raises Blocked if the files hold another number of rows than they say.
    """
    marks = _marks(table, day, max_skew)
    if marks.height != sum(table.rows):
        raise Blocked(what=f"{table.layout.name} of day={day}: {marks.height} rows were read of {sum(table.rows)}")
    sound = marks.filter(pl.col("why").is_null())

    def fetch(places: pl.Series, columns: Sequence[str] | None = None) -> pl.DataFrame:
        rows = table.frame.with_row_index(PLACE).filter(pl.col(PLACE).is_in(places.implode()))
        named = rows.select(pl.col(PLACE).cast(pl.UInt64), arrival(table.layout, day), *(columns or table.columns))
        return named.collect(engine="streaming")

    found = losers(sound, table.layout, fetch)
    if "spot" in marks.columns:
        standing = sound.join(found, on=PLACE, how="anti")
        found = pl.concat([found, taken(standing.select(PLACE, key="spot"), fetch)])
    fate = marks["why"].scatter(found[PLACE], found["reason"].replace_strict(_NUMBER, return_dtype=pl.UInt8))
    return DayTable(table, fate.rename(_FATE))


_CALENDAR = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
_NUMBER = {name: number for number, name in enumerate(_FATES)}


def arrival(layout: Layout, day: date) -> pl.Expr:
    """Return when a row arrived, as ARRIVED; a view's rows arrived at their day's start."""
    arrived = pl.col(layout.arrival) if layout.arrival else pl.lit(day_start(day), dtype=pl.Datetime("us", "UTC"))
    return arrived.alias(ARRIVED)


def _marks(table: Table, day: date, max_skew: timedelta) -> pl.DataFrame:
    wanted = {"key": _key(table.layout, table.layout.key), "why": first_reason(table, day, max_skew)}
    if table.layout.has("position"):
        wanted["spot"] = _key(table.layout, ("request_id", "position"))
    marks = table.frame.select(**wanted).collect(engine="streaming")
    return marks.with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.UInt64))


def _key(layout: Layout, columns: Sequence[str]) -> pl.Expr:
    """Hash a key without its long texts: their rows are quarantined, and hashing gigabytes of them takes minutes."""
    parts = (pl.col(name) for name in columns)
    fit = (pl.when(one.str.len_bytes() <= MAX_TEXT_BYTES).then(one) if name in layout.ids else one
           for name, one in zip(columns, parts, strict=True))  # fmt: skip
    return key_hash(tuple(fit))


def _legible(table: Table) -> list[pl.Expr]:
    """Return a row's columns for its JSON text; a time that no calendar has is shown as its microseconds."""
    times = [column.name for column in table.layout.columns if column.kind == "time"]
    shown = [
        pl.when(pl.col(name).is_between(*_CALENDAR))
        .then(pl.col(name).clip(*_CALENDAR).dt.to_string("iso:strict"))
        .otherwise(pl.col(name).cast(pl.Int64).cast(pl.String))
        .alias(name)
        for name in times
    ]
    texts = [column.name for column in table.layout.columns if column.kind == "text"]
    texts += [name for name, kind in table.features.items() if kind == "string"]
    shown += [pl.col(name).str.head(MAX_SHOWN) for name in texts]
    lists = [column for column in table.layout.columns if column.kind in ("reasons", "candidates")]
    shown += [_shortened(column.name, column.kind) for column in lists]
    named = {*times, *texts, *(column.name for column in lists)}
    return [*shown, *(pl.col(name) for name in table.columns if name not in named)]


def _shortened(name: str, kind: Kind) -> pl.Expr:
    """Return a list column with the first of its entries, and of their texts what can be read."""
    texts, others = (("key", "value"), ()) if kind == "reasons" else (("item_id",), ("score",))
    entry = pl.element().struct
    fields = [*(entry.field(one).str.head(MAX_SHOWN) for one in texts), *(entry.field(one) for one in others)]
    return pl.col(name).list.head(MAX_SHOWN).list.eval(pl.struct(*fields))


def _places(fates: Sequence[str]) -> list[int]:
    return [_NUMBER[name] for name in fates]


def _named(column: str, names: Sequence[str]) -> pl.Expr:
    return pl.lit(pl.Series(names, dtype=pl.String)).gather(pl.col(column))
