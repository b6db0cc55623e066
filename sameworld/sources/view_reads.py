"""The ways in which the joined views of some rows can be read: as known at a moment, with more let in, as of today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from sameworld.models.features import chosen
from sameworld.sources.day_rows import ViewRows
from sameworld.store.feature_rows import FeatureColumns, feature_columns, with_features
from sameworld.store.log import Log
from sameworld.store.unfiltered_views import arrived_before, newest_at_any_time, readable_once_stored, unfiltered_rows
from sameworld.store.views import feature_name, views_named

KNOWN, ALL = "known", "all let in"


@dataclass(frozen=True)
class ViewReads:
    """Ways to join the views of the rows shown in ``[since, until)``, each a name and a log by view.

    columns : where features come from; served values always win
    joined : the views that give any of these rows a value; where serving logged it, nothing can leak through them
    changed : those of them of which anything could be let in
    """

    columns: FeatureColumns
    joined: tuple[str, ...]
    changed: tuple[str, ...]
    logs: Mapping[str, Mapping[str, Log]]
    cutoff: datetime

    @classmethod
    def of(
        cls,
        log: Log,
        *,
        include: Sequence[str],
        exclude: Sequence[str],
        views: Mapping[str, Sequence[str]],
        since: datetime,
        until: datetime,
        cutoff: datetime,
    ) -> ViewReads:
        """Find out which views are joined, and how they can be read.

        include, exclude, views : as in the spec's features; until : the moment at which rows are known, a day's start
        """
        names = [name for name in log.table("impressions").collect_schema().names() if name.startswith("x_")]
        served = chosen(names, include=include, exclude=exclude)
        columns = feature_columns(log, "impressions", served=served, views=views_named(log, views))
        days = (since.date(), until.date())
        joined = tuple(view for view, given in columns.views.items() if any(_joined(columns, n, days) for n in given))
        rows = ViewRows.of(log, {view: columns.views[view] for view in joined}, cutoff).log
        changed = tuple(view for view in joined if unfiltered_rows(rows, view, until))
        return cls(columns, joined, changed, _logs(rows, joined, changed, until=until, cutoff=cutoff), cutoff)

    @property
    def all(self) -> str:
        """The name of the read that lets in all that there is."""
        return ALL if len(self.changed) > 1 else let_in(self.changed[0]) if self.changed else KNOWN

    @property
    def never_served(self) -> set[str]:
        """The features that only the joined views give."""
        given = {feature_name(name) for view in self.joined for name in self.columns.views[view]}
        return given - set(self.columns.served)

    @property
    def by_arrival_day(self) -> bool:
        """Whether it takes a row's day of arrival to know whether a feature was served."""
        given = {feature_name(name) for view in self.joined for name in self.columns.views[view]}
        return bool(given & set(self.columns.served))

    def featured(self, rows: pl.DataFrame, read: str) -> pl.DataFrame:
        """Return the rows with the joined views' features as a read sees them.

        rows : frame with shown_at, the views' keys and all other features; ``arrival_day`` where that is asked for
        """
        found = rows.lazy()
        for view, log in self.logs[read].items():
            given = {view: self.columns.views[view]}
            one = FeatureColumns(self.columns.served, given, self.columns.never_served_on)
            found = with_features(found, log, one, cutoff=self.cutoff)
        return found.collect(engine="streaming")


def let_in(view: str) -> str:
    """Return the name of the read that lets in one view."""
    return f"let in: {view}"


def as_of_today(view: str) -> str:
    """Return the name of the read that joins one view without any time."""
    return f"as of today: {view}"


def _joined(columns: FeatureColumns, name: str, days: tuple[date, date]) -> bool:
    """Tell whether any row that arrived from the first day up to the last one takes a feature from a view."""
    feature = feature_name(name)
    absent = columns.never_served_on.get(feature, ())
    return feature not in columns.served or any(days[0] <= day < days[1] for day in absent)


def _logs(
    rows: Log, joined: Sequence[str], changed: Sequence[str], *, until: datetime, cutoff: datetime
) -> dict[str, dict[str, Log]]:
    known = dict.fromkeys(joined, arrived_before(rows, until.date()))
    stored, today = readable_once_stored(rows, cutoff), newest_at_any_time(rows, cutoff)
    everything = {ALL: {**known, **dict.fromkeys(changed, stored)}} if len(changed) > 1 else {}
    return {
        KNOWN: known,
        **{let_in(view): {**known, view: stored} for view in changed},
        **everything,
        **{as_of_today(view): {**known, view: today} for view in joined},
    }
