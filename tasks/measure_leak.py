"""Measure the leak: how far the judged model's metrics would move if rows were let in that had not arrived yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.inflation import Inflation, in_words
from sameworld.models.judging import Judged
from sameworld.models.scored_rows import codes, judged_rows, user_codes
from sameworld.records import Cannot
from sameworld.sources.view_reads import KNOWN, ViewReads, as_of_today, let_in
from sameworld.store.artifacts import Artifact
from sameworld.store.log import VIEW_PREFIX, Log
from sameworld.store.outcomes import outcomes_in_window
from sameworld.store.parts import example_parts
from sameworld.store.step import Work, step
from sameworld.store.times import day_start, parse_day, parse_time, time_text

KEY = ["request_id", "item_id"]
METRIC, ALSO = "normalised_entropy", ("calibration_ratio", "auc")
OUTCOMES, LET_IN = "outcomes", "let_in"


@step(
    reads=(
        *("label.window_days", "label.gains", "label.target", "source.max_skew_seconds", "features"),
        *("evaluate.seed", "evaluate.replicates", "decide.metric"),
    )
)
def run(
    work: Work, *, log: Artifact, delay: Artifact, examples: Artifact, bundle: Artifact, look_back: Artifact
) -> None:
    """Judge the bundle of C₀ on the same rows twice: by what had arrived at a moment A, and by what had happened.

    A is the newest day's start such that what happened before it has landed by the cutoff; the rows are the impressions
    shown since the bundle would have been deployed that had arrived by A. The honest read knows the outcomes and view
    values that had arrived by A. The other one lets in what arrived later, up to the cutoff, if it had happened (or
    could be read) before, and view values from the day after our log had them. The difference, paired by user, is how
    far an evaluation by event time would have been off. Nothing that arrived at the cutoff or after it is read.
    """
    since = parse_time(look_back.record["from"])
    until = day_start((work.now - timedelta(hours=delay.record["lag_hours"])).date())
    view, spec = Log.open(log, work.store), work.spec.features
    reads = ViewReads.of(
        view, include=spec.include, exclude=spec.exclude, views=spec.views, since=since, until=until, cutoff=work.now
    )
    model = load_bundle(bundle)
    days = [_scored(day, model, reads) for day in _rows_by_day(work, view, examples, reads, since=since, until=until)]
    if not days:
        reason = f"no impression shown since {time_text(since)} had arrived by {time_text(until)}"
        work.record = Cannot(f"there is nothing to judge: {reason}").as_record()
        return
    table, counts = _labelled(work, view, pl.concat(days), until)
    compared = _Compared(work, table, reads, labels_moved=any(counts.values())).record(time_text(until))
    work.rows = len(table)
    work.record = {**compared, "from": time_text(since), "to": time_text(until), "rows": len(table), **counts}


def _rows_by_day(
    work: Work, log: Log, examples: Artifact, reads: ViewReads, *, since: datetime, until: datetime
) -> Iterator[pl.DataFrame]:
    """Yield the impressions of ``[since, until)`` that had arrived by ``until``, a shown day at a time.

    So memory grows with the largest day. Features that only views give are left out: each read joins its own.
    """
    shown = pl.col("shown_at").is_between(since, until, closed="left")
    landed = log.table("impressions", arrival_days=(since.date(), work.now.date())).filter(shown)
    late = landed.filter(pl.col("arrived_at") >= until).select(KEY).collect(engine="streaming").lazy()
    arrival = landed.select(*KEY, "arrival_day").collect(engine="streaming").lazy() if reads.by_arrival_day else None
    for part in example_parts(examples, work.store, since=since, before=until):
        rows = part.filter(shown).drop("completeness", *sorted(reads.never_served), strict=False)
        rows = rows.join(late, on=KEY, how="anti", maintain_order="left")
        rows = rows if arrival is None else rows.join(arrival, on=KEY, how="left", maintain_order="left")
        table = rows.collect(engine="streaming")
        if len(table):
            yield table


def _scored(rows: pl.DataFrame, model: Bundle, reads: ViewReads) -> pl.DataFrame:
    """Return the rows with the score and the probability that each read of the views gives them."""
    found = rows.select(name for name in (*KEY, "user_id", "shown_at") if name in rows.columns)
    for read in reads.logs:
        one = judged_rows(reads.featured(rows, read), model)
        columns = {f"score {read}": one.score, f"probability {read}": one.probability, "unseen": one.unseen}
        found = found.with_columns(pl.Series(name, values) for name, values in columns.items())
    return found


def _labelled(work: Work, log: Log, table: pl.DataFrame, until: datetime) -> tuple[pl.DataFrame, dict[str, int]]:
    """Add gain and target as known at ``until`` and with all let in, and count what makes the difference."""
    gains, target = work.spec.label.gains, work.spec.label.target
    kinds = sorted(gains)
    events = _events(work, log, table, kinds, until)
    flags = [
        (pl.col(read) & (pl.col("kind") == kind)).any().alias(f"{read} {kind}")
        for read in (KNOWN, LET_IN)
        for kind in kinds
    ]
    rows = table.join(events.group_by(KEY).agg(flags), on=KEY, how="left", maintain_order="left")
    rows = rows.with_columns(pl.col(f"{read} {kind}").fill_null(False) for read in (KNOWN, LET_IN) for kind in kinds)
    for read in (KNOWN, LET_IN):
        gain = pl.sum_horizontal(pl.col(f"{read} {kind}") * gains[kind] for kind in kinds).cast(pl.Float64)
        rows = rows.with_columns(gain.alias(f"gain {read}"), pl.col(f"{read} {target}").alias(f"target {read}"))
    late, taken_back = (events.filter(one, ~pl.col(other)) for one, other in ((LET_IN, KNOWN), (KNOWN, LET_IN)))
    return rows, {"late_outcomes": len(late), "late_retractions": len(taken_back)}


def _events(work: Work, log: Log, rows: pl.DataFrame, kinds: list[str], until: datetime) -> pl.DataFrame:
    """Return the outcome events of the rows within their window, and whether each read counts them.

    A retraction has no time of its own but its arrival, so all that arrived by the cutoff are let in.
    """
    skew = timedelta(seconds=work.spec.source.max_skew_seconds)
    first = rows.select(pl.col("shown_at").min()).item() - 2 * skew
    recent = tuple(day for day in log.days if parse_day(day.record["day"]) >= first.date())
    events = outcomes_in_window(
        Log(log.resolved, recent, log.gone),
        shown=rows.lazy().select(*KEY, "shown_at"),
        window=timedelta(days=work.spec.label.window_days),
        skew=skew,
        cutoff=work.now,
        among=pl.col("kind").is_in(kinds),
    )
    arrived, retracted = pl.col("arrived_at") < until, pl.col("retracted_at")
    known = arrived & (retracted.is_null() | (retracted >= until))
    # By two clocks an outcome can arrive before it happened: what was known stays known.
    happened = (arrived | (pl.col("happened_at") < until)) & retracted.is_null()
    return events.select(*KEY, "kind", known.alias(KNOWN), happened.alias(LET_IN)).collect(engine="streaming")


@dataclass(frozen=True)
class _Compared:
    """The scored and labelled rows, and what of them is compared."""

    work: Work
    table: pl.DataFrame
    reads: ViewReads
    labels_moved: bool

    def record(self, moment: str) -> dict[str, Any]:
        """Return the metrics of both reads, by source, and each joined view as of today."""
        judge = _judge(self.table)
        honest = judge(KNOWN, KNOWN)
        draw = self.work.spec.evaluate
        by = Inflation(honest, draw.seed, draw.replicates)
        outcomes = judge(KNOWN, LET_IN) if self.labels_moved else honest
        everything = judge(self.reads.all, LET_IN) if self.reads.changed else outcomes
        views = {view: judge(let_in(view), KNOWN) for view in self.reads.changed}
        names = dict.fromkeys([METRIC, *ALSO, self.work.spec.decide.metric])
        found = {name: by.of(name, everything) for name in names}
        anything = self.labels_moved or bool(self.reads.changed)
        today = {view: _alone(by, judge(as_of_today(view), KNOWN)) for view in self.reads.joined}
        return {
            "metric": METRIC,
            **found[METRIC],
            "sentence": in_words(METRIC, found[METRIC], moment=moment, anything=anything),
            "by_source": {
                OUTCOMES: _alone(by, outcomes),
                **{_source(view): _alone(by, views.get(view, honest)) for view in self.reads.columns.views},
            },
            "metrics": found,
            **({"snapshot": today} if today else {}),
        }


def _source(view: str) -> str:
    return f"{VIEW_PREFIX}{view}" if view == OUTCOMES else view


def _alone(by: Inflation, read: Judged) -> dict[str, Any]:
    return {name: value for name, value in by.of(METRIC, read).items() if name != "honest"}


def _judge(table: pl.DataFrame) -> Callable[[str, str], Judged]:
    """Return a function from a read of the views and one of the outcomes to the rows that it judges.

    All reads share their requests and users, so what is drawn for one is drawn for all.
    """
    request = table.select(pl.col("request_id").rle_id()).to_series().cast(pl.Int64).to_numpy()
    user, item, unseen = user_codes(table), codes(table["item_id"]), table["unseen"].to_numpy()

    def judge(views: str, outcomes: str) -> Judged:
        named = (f"gain {outcomes}", f"target {outcomes}", f"score {views}", f"probability {views}")
        gain, target, score, probability = (table[name].cast(pl.Float64).to_numpy() for name in named)
        return Judged(request, user, item, gain, target, score, probability, unseen)

    return judge
