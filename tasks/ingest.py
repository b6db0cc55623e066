"""Takes in the days of a drop: sound rows by table, the rest in quarantine with its reason, each sum stated.

A day's artifact depends on the day's files alone. What a later day can change (which of two contradicting rows stands,
whether a position was taken twice) is counted here as far as the day itself knows, and left to ``resolve``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

from sameworld.records import Blocked, Cannot, NotYet, Refused, SameworldError
from sameworld.sources import claim_root, open_source, refuse_other_source
from sameworld.sources.day_table import QUARANTINE, DayTable, judge
from sameworld.sources.drop import Drop, DropDay, DropFile
from sameworld.sources.repair import repaired
from sameworld.sources.tables import READ_ERRORS, read_table
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log import Delivery, deliveries, delivery_seen, record_delivery
from sameworld.store.step import Made, Work, at_once, resolve_cutoff, scratch_folder, step
from sameworld.store.times import day_start

Days = dict[date, list[Delivery]]


def run(*, store: Store, spec: Spec, cutoff: str, redeliver: bool = False) -> list[str]:
    """Take in every day that ended by the cutoff, and return the URIs of what the cutoff sees, oldest first.

    cutoff : an ISO time, or the URI of an artifact that found one; where it found that there is none: no days
    redeliver : take a changed day again, for this cutoff and later ones

    Raises NotYet, having written nothing, if a day since the first is not there; Blocked for a file that breaks the
    contract; Refused for a day that changed after it was taken in, and for a root of another source.
    """
    return [made.uri for made in taken_in(store=store, spec=spec, cutoff=cutoff, redeliver=redeliver)]


def taken_in(*, store: Store, spec: Spec, cutoff: str, redeliver: bool = False) -> list[Made]:
    """Like ``run``, and say of each day whether an earlier artifact was reused."""
    moment = resolve_cutoff(store, cutoff)
    if moment is None or isinstance(moment, Cannot):
        return []
    refuse_other_source(store, spec.source)
    drop, log = open_source(spec.source), deliveries(store)
    days = _days(drop, log, moment)
    claim_root(store, spec.source)
    intake = _Intake(store, spec, drop, log, moment, redeliver)
    intake.make_ahead(days)
    return [intake.take(day) for day in days]


def _days(drop: Drop, log: Days, moment: datetime) -> list[date]:
    there = set(drop.days())
    first = min(there | set(log), default=None)
    if first is None:
        raise NotYet(what="no day of the drop is there yet", got=drop.uri, wanted="day=YYYY-MM-DD with _SUCCESS",
                     remedy="run again once a day has landed")  # fmt: skip
    count = max(0, (moment - day_start(first)) // timedelta(days=1))
    days = [first + timedelta(days=number) for number in range(count)]
    missing = [day for day in days if day not in there and day not in log]
    if missing:
        raise NotYet(what=f"day {missing[0]} of the drop is not there yet", got=f"{len(missing)} without _SUCCESS",
                     wanted=f"every day from {first} to {days[-1]}",
                     remedy="run again once it has landed")  # fmt: skip
    return days


@dataclass
class _Intake:
    """One run's way through the days, oldest first; ``kinds`` are the features' kinds as the days so far had them."""

    store: Store
    spec: Spec
    drop: Drop
    log: Days
    moment: datetime
    redeliver: bool
    kinds: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    ahead: dict[date, tuple[DropDay, Made]] = field(default_factory=dict)

    def make_ahead(self, days: list[date]) -> None:
        """Make the artifacts of days that the log does not have, several at once.

        A day that cannot be taken in is left for its turn: the oldest one's error is the one to raise.
        """

        def make(day: date) -> None:
            with suppress(SameworldError):
                found = self.drop.day(day)
                self.ahead[day] = found, ingest_day.make(store=self.store, spec=self.spec, drop=found)

        new = [day for day in days if day not in self.log and self.drop.is_there(day)]
        if len(new) > 1:
            with ThreadPoolExecutor(at_once(self.spec)) as pool:
                list(pool.map(make, new))

    def take(self, day: date) -> Made:
        """Return what the cutoff sees of a day, made anew where it is not there."""
        known = self.log.get(day, [])
        if day in self.ahead:
            return self._recorded(*self.ahead[day], known, changed=False)
        found = self.drop.day(day) if self.drop.is_there(day) else None
        seen = delivery_seen(known, self.moment) if known else None
        if found is None or (seen and self._is_past(seen, known, found)):
            return self._standing(seen)
        return self._made(found, seen, known)

    def _is_past(self, seen: Delivery, known: list[Delivery], found: DropDay) -> bool:
        """Say whether the drop holds a newer delivery than the one that the cutoff sees."""
        return found.content != seen.content and any(found.content == one.content for one in known)

    def _standing(self, seen: Delivery | None) -> Made:
        artifact = self.store.find("ingest", seen.fingerprint) if seen else None
        if artifact is None:
            day = seen.day if seen else "of the log"
            raise Refused(what=f"day {day} is gone from the drop and from the root", wanted="either of them",
                          remedy="put its files back into the drop")  # fmt: skip
        self._compare_kinds(artifact)
        return Made(artifact.verify().uri, reused=True)

    def _made(self, found: DropDay, seen: Delivery | None, known: list[Delivery]) -> Made:
        changed = seen is not None and seen.content != found.content
        if changed and not self.redeliver:
            raise Refused(what=f"day {found.day} changed after it was taken in", got="other files than its delivery's",
                          wanted="the same bytes",
                          remedy="deliver the correction in a later day, where it arrived; or run with --redeliver"
                          )  # fmt: skip
        made = ingest_day.make(store=self.store, spec=self.spec, drop=found)
        return self._recorded(found, made, known, changed=changed)

    def _recorded(self, found: DropDay, made: Made, known: list[Delivery], *, changed: bool) -> Made:
        """Record a day's delivery, where it is a new one, once its features are of the kinds that they were."""
        artifact = self.store.open(made.uri, step="ingest")
        self._compare_kinds(artifact)
        if not known or changed:
            number, since = (known[-1].number + 1, self.moment) if known else (1, None)
            record_delivery(self.store, Delivery(found.day, number, found.content, artifact.fingerprint, since))
        return made

    def _compare_kinds(self, artifact: Artifact) -> None:
        """Raise Blocked where a feature is of another kind than the newest earlier day with it had."""
        day = artifact.record["day"]
        for table, features in artifact.record["features"].items():
            for name, kind in features.items():
                before, when = self.kinds.setdefault((table, name), (kind, day))
                if before != kind:
                    raise Blocked(what=f"day={day}/{table.replace('.', '/')}: column {name!r} has a wrong type: "
                                       f"got {kind}; wanted {before}, as in day={when}")  # fmt: skip
                self.kinds[table, name] = (kind, day)


@step(reads=("source.max_skew_seconds",))
def ingest_day(work: Work, *, drop: DropDay) -> None:
    """Split a day's rows into sound ones, duplicates and quarantine, by table, and state the sums."""
    skew = timedelta(seconds=work.spec.source.max_skew_seconds)
    tables: list[DayTable] = []
    with scratch_folder(work.store) as aside:
        for name, files in sorted(drop.files.items()):
            tables.append(_write(work, name, files, day=drop.day, skew=skew, aside=aside))
        work.write("quarantine", pl.concat([pl.LazyFrame(schema=QUARANTINE), *(one.quarantine() for one in tables)]))
    work.rows = sum(one.sums["rows_in"] for one in tables)
    work.record |= {
        "day": drop.day.isoformat(),
        "tables": {one.table.layout.name: one.sums for one in tables},
        "ignored": {one.table.layout.name: list(one.table.ignored) for one in tables if one.table.ignored},
        "features": {one.table.layout.name: dict(one.table.features) for one in tables},
    }


def _write(work: Work, name: str, files: Sequence[DropFile], *, day: date, skew: timedelta, aside: Path) -> DayTable:
    try:
        return _written(work, judge(read_table(name, files), day, skew))
    except READ_ERRORS as error:
        copies = repaired(files, aside)
        if not copies:
            raise Blocked(what=f"{name} of day={day} cannot be read: {type(error).__name__}") from error
    return _written(work, judge(read_table(name, files, paths=copies), day, skew))


def _written(work: Work, judged: DayTable) -> DayTable:
    work.write(judged.table.layout.name, judged.kept())
    return judged
