"""Check a table before it is built on: one scan to a profile, one suite over it, every finding at once.

A step here publishes what it found and never stops the run; ``gate`` does that, so the findings outlive a BLOCK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from sameworld.records import Blocked
from sameworld.sources.day_table import OPEN_FATES
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.day_profile import StandingDay, daily_counts, missing
from sameworld.store.log import Log
from sameworld.store.log_profile import ORPHAN, Asked, log_profile
from sameworld.store.outcomes import NO_VALUE
from sameworld.store.parts import examples_of, labels_of
from sameworld.store.step import Work, step
from sameworld.store.table_profiles import bad_labels, labels_profile, request_runs, training_profile
from sameworld.store.times import day_end, parse_day, time_text

KEYS = ("request_id", "item_id")
EXAMPLES, LONGEST = 5, 200  # rows a finding, characters a cell
Row = dict[str, Any]
Examples = Callable[[Mapping[str, Any]], pl.LazyFrame | None]


@step()
def profile_day(work: Work, *, day: StandingDay) -> None:
    """Count one day of arrival as it stands: rows, requests, nulls and kinds, and its requests one by one."""
    requests = day.requests()
    work.record = {"day": day.day.isoformat(), **day.counts(len(requests))}
    work.rows = int(requests["rows"].sum())
    work.write("requests", requests)


@step(
    reads=(
        "validate.min_volume_share",
        "validate.max_volume_share",
        "validate.like_weekdays",
        "validate.max_quarantined_share",
        "validate.max_null_rate_move",
        "validate.max_repeated_move",
        "label.gains",
        "label.target",
        "label.window_days",
    )
)
def check_log(work: Work, *, log: Artifact) -> None:
    """Check the log as of the cutoff, and how much of it landed on the day that the cutoff ends."""
    view, limits, label = Log.open(log, work.store), work.spec.validate, work.spec.label
    asked = Asked(
        day=(work.now - timedelta(microseconds=1)).date(),
        like_weekdays=limits.like_weekdays,
        kinds=tuple(sorted(label.gains)),
        target=label.target,
        window=timedelta(days=label.window_days),
        left_open=OPEN_FATES,
    )
    names = ("min_volume_share", "max_volume_share", "max_quarantined_share", "max_null_rate_move", "max_repeated_move")
    thresholds = {name: getattr(limits, name) for name in names}
    days = work.each(
        lambda day: work.part(profile_day, day=day, cutoff=time_text(day_end(day.day))), StandingDay.each(view)
    )
    profile = log_profile(view, days, asked)
    _conclude(work, "log", profile, thresholds, lambda finding: _log_rows(view, days, asked, finding))
    work.rows = int(profile.filter(pl.col("segment") == "all")["rows"].sum() or 0)


@step(reads=("validate.min_positives", "label.target", "label.window_days"))
def check_labels(work: Work, *, labels: Artifact, delay: Artifact) -> None:
    """Check the labels: both classes among the closed rows, gains and completeness that are numbers."""
    horizon_hours = 24 * work.spec.label.window_days + delay.record["lag_hours"]
    table, bad = labels_of(labels, work.store), bad_labels(horizon_hours)
    thresholds = {"min_positives": work.spec.validate.min_positives}
    profile = labels_profile(
        table, horizon_hours=horizon_hours, target=work.spec.label.target, enough_rows=thresholds["min_positives"]
    )

    def examples(finding: Mapping[str, Any]) -> pl.LazyFrame | None:
        kind = str(finding["id"])
        return (
            table.filter(bad[kind]).select(*KEYS, "closed", "age_hours", "gain", "completeness")
            if kind in bad
            else None
        )

    _conclude(work, "labels", profile, thresholds, examples)
    work.rows = int(profile.filter(pl.col("segment") == "all")["rows"][0])


@step()
def check_training_set(work: Work, *, examples: Artifact) -> None:
    """Check the training set: from before the cutoff, requests whole, features that say something."""
    table = examples_of(examples, work.store)
    known = set(table.collect_schema().names())
    features = [name for name in sorted(examples.record["features"]) if name in known]
    profile = training_profile(table, features=features, cutoff=work.now)

    def rows(finding: Mapping[str, Any]) -> pl.LazyFrame | None:
        if finding["id"] == "future":
            return table.filter(pl.col("shown_at") >= work.now).select(*KEYS, "shown_at")
        if finding["id"] == "torn":
            return request_runs(table).filter(pl.col("runs") > 1).sort("request_id")
        name = str(finding["segment"]).removeprefix("feature ")
        return table.filter(pl.col(name).is_infinite()).select(*KEYS, name) if finding["id"] == "infinite" else None

    _conclude(work, "training_set", profile, {}, rows)
    work.rows = int(profile.filter(pl.col("segment") == "all")["rows"][0])


def gate(store: Store, uri: str) -> str:
    """Return the URI of a check that lets the run go on; raise ``Blocked`` with all its BLOCK sentences otherwise."""
    artifact = store.open(uri, step="validate")
    if artifact.cannot is not None or artifact.record["status"] != "BLOCK":
        return uri
    sentences = tuple(f"BLOCK {one['sentence']}" for one in artifact.record["findings"] if one["level"] == "BLOCK")
    suite = str(artifact.record["suite"]).replace("_", " ")
    raise Blocked(what=f"the {suite} did not pass its gate. {' · '.join(sentences)}", uri=uri, findings=sentences)


def write_data_docs(store: Store, uris: Iterable[str], folder: Path) -> Path:
    """Write Great Expectations' Data Docs of some checks into a folder outside the artifacts; return the index page."""
    from expectations.judge import write_site

    judged = []
    for uri in uris:
        artifact = store.open(uri, step="validate")
        if artifact.cannot is None:
            suite, thresholds = artifact.record["suite"], artifact.record["thresholds"]
            profile = artifact.scan("profile").collect().to_pandas()
            judged.append((suite, profile, _expectations(suite, thresholds)))
    return write_site(judged, folder)


def _expectations(suite: str, thresholds: Mapping[str, Any]) -> list[Any]:
    from expectations import labels, log, training_set

    suites: dict[str, Callable[..., list[Any]]] = {
        "log": log.suite,
        "labels": labels.suite,
        "training_set": training_set.suite,
    }
    return suites[suite](**thresholds)


def _conclude(work: Work, suite: str, profile: pl.DataFrame, thresholds: Mapping[str, Any], rows: Examples) -> None:
    """Judge the profile and write profile, findings and a few rows of each finding."""
    from expectations.judge import findings  # takes seconds to import

    found = findings(profile.to_pandas(), name=suite, expectations=_expectations(suite, thresholds))
    for finding in found:
        finding["examples"] = _few(rows(finding))
    levels = {finding["level"] for finding in found}
    work.write("profile", profile)
    work.record = {
        "suite": suite,
        "status": "BLOCK" if "BLOCK" in levels else "WARN" if levels else "PASS",
        "findings": found,
        "thresholds": dict(thresholds),
        "profile": [{name: value for name, value in row.items() if value is not None} for row in profile.to_dicts()],
    }


def _few(frame: pl.LazyFrame | None) -> list[Row]:
    if frame is None:
        return []
    few = frame.head(EXAMPLES).collect(engine="streaming")
    times = [name for name, kind in few.schema.items() if isinstance(kind, pl.Datetime)]
    text = [name for name, kind in few.schema.items() if not (kind.is_integer() or kind == pl.Boolean)]
    few = few.with_columns(pl.col(times).dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"))
    few = few.with_columns(pl.col(text).cast(pl.String).str.slice(0, LONGEST))
    return [{name: NO_VALUE if value is None else value for name, value in row.items()} for row in few.to_dicts()]


def _log_rows(view: Log, days: Sequence[Artifact], asked: Asked, finding: Mapping[str, Any]) -> pl.LazyFrame | None:
    table, kind = str(finding["table"]), str(finding["id"])
    name = str(finding["segment"]).partition(" ")[2]  # "feature x_price", "kind click"
    if kind in ("landed_low", "landed_high"):
        return daily_counts(days, table).lazy().select("arrival_day", "rows").reverse()
    if kind == "quarantined":
        return _quarantined_rows(view, asked, table, whole=finding["segment"] == "all")
    if kind == "nulls":
        today = view.table(table, arrival_days=(asked.day, asked.day))
        return today.filter(missing(name, today.collect_schema()[name])).select(*KEYS)
    if kind == "kind_unnamed":
        return view.table(table).filter(pl.col("kind").cast(pl.String) == name).select(*KEYS, "happened_at")
    if kind == "positions":
        place = pl.col("position")
        ends = {"rows": pl.len(), "first": place.min(), "last": place.max(), "shown_at": pl.col("shown_at").min()}
        lists = view.table(table).group_by("request_id").agg(**ends)
        return lists.filter((pl.col("first") != 1) | (pl.col("last") != pl.col("rows"))).sort("shown_at", "request_id")
    if kind == "keys":
        return view.table(table).group_by(KEYS).agg(rows=pl.len()).filter(pl.col("rows") > 1).sort(KEYS)
    return None


def _quarantined_rows(view: Log, asked: Asked, table: str, *, whole: bool) -> pl.LazyFrame | None:
    """Return quarantined rows of the day, or of any: the ones that ingest set aside, then what resolve took out."""
    days = [one for one in view.days if whole or parse_day(one.record["day"]) == asked.day]
    parts = [
        one.scan("quarantine").filter(pl.col("table") == table) for one in days if "quarantine.parquet" in one.files
    ]
    gone = view.resolved.scan("gone").filter(
        pl.col("table") == table, ~pl.col("reason").is_in(["duplicate", "conflict"])
    )
    gone = gone if whole else gone.filter(pl.col("day") == asked.day)
    return pl.concat([*parts, gone], how="diagonal_relaxed").filter(
        pl.col("reason") != ORPHAN if whole else pl.lit(True)
    )
