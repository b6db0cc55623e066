"""Find the requests that repeat each other and the users that are bots, and say what their rows weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.repeats import Repeats, contradicted, find_repeats, mixed, set_keys
from sameworld.store.artifacts import Artifact
from sameworld.store.parts import Part, parts_of, summed
from sameworld.store.repeat_rows import LEFT_OUT, WEIGHTS
from sameworld.store.step import Work, step
from sameworld.store.times import parse_time

US, US_A_MINUTE = timedelta(microseconds=1), 60_000_000
RULES = ("repeats.rule", "repeats.minutes", "repeats.user_requests_a_day")
COUNTS = (
    *("rows", "requests", "clusters", "clustered_requests", "clustered_rows"),
    *("contradictory_clusters", "contradictory_rows", "bot_requests", "bot_rows", "left_out_requests"),
    *("left_out_rows", "positives", "left_out_positives"),
)
SEED = 11  # of Polars' hash: nothing but equality is read from it


@step(reads=RULES)
def find_repeats_day(work: Work, *, labels: Artifact) -> None:
    """Find the repeats among the requests that began on one day.

    A cluster is the same user shown the same set of items, each copy within ``minutes`` of the one before; what
    straddles midnight counts as two. Labels are counted but decide nothing: to keep the copy that was clicked would
    select on what is to be learned, so ``leave_out`` keeps the last, on which a user who reloads goes on.
    Weights are written only where one is not 1.
    """
    day = _Day.of(_read(labels))
    rules = work.spec.repeats
    within = round(rules.minutes * US_A_MINUTE)
    repeats = find_repeats(day.user, day.known, day.items, day.at, within=within, least=rules.user_requests_a_day)
    weight = repeats.weights(rules.rule)
    work.rows = len(day.target)
    bots = day.name.filter(repeats.bot).unique().sort().to_list()
    work.record = {"day": labels.record["day"], **_counts(day, repeats), **_weighed(day, weight), "bots": bots}
    if (weight != 1.0).any():
        rows = {"repeat_weight": weight[day.request], "judged": repeats.kept[day.request]}
        work.write(WEIGHTS, pl.DataFrame(rows))
    if not repeats.kept.all():
        work.write(LEFT_OUT, pl.DataFrame({"request_id": day.request_id.filter(~repeats.kept)}))


@step(reads=(*RULES, "label.window_days"))
def run(work: Work, *, labels: Artifact) -> None:
    """List the repeats of the training period, one part a shown day, and count them.

    Parts of closed days are reused as they are. ``same_pair`` counts, over the newest two windows of closed rows, how
    often the same user saw the same item again within the label window of the time before, in whatever list, and how
    many of those rows have a target that differs among them: that is measured only, since a second look may well end
    otherwise.
    """

    def made(part: Part) -> Artifact:
        return work.part(find_repeats_day, labels=part.artifact, cutoff=part.artifact.record["until"])

    found = parts_of(labels, work.store)
    parts = work.each(made, found)
    records = [part.record for part in parts]
    work.rows = sum(record["rows"] for record in records)
    work.record = {
        "cutoff": labels.record["cutoff"],
        "parts": [{"day": part.record["day"], "fingerprint": part.fingerprint} for part in parts],
        "rule": work.spec.repeats.rule,
        **_totals(records),
        "same_pair": _same_pair(found, labels, within=timedelta(days=work.spec.label.window_days)),
    }


@dataclass(frozen=True)
class _Day:
    """A day's rows (request, item, target) and its requests (the rest); keys are equal where things are."""

    request: NDArray[np.int64]
    item: NDArray[np.uint64]
    target: NDArray[np.int8]
    request_id: pl.Series
    name: pl.Series
    user: NDArray[np.uint64]
    known: NDArray[np.bool_]
    items: NDArray[np.uint64]
    at: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Day:
        number = rows["request"].to_numpy()
        starts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]][: len(number)])
        item, shown = rows["item"].to_numpy(), rows["at"].to_numpy()
        first = rows[starts]
        return cls(
            request=np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(number)])),
            item=item,
            target=rows["target"].to_numpy(),
            request_id=first["request_id"],
            name=first["user_id"],
            user=first["user"].to_numpy(),
            known=first["user_id"].is_not_null().to_numpy(),
            items=set_keys(item, starts),
            at=np.minimum.reduceat(shown, starts) if len(starts) else shown,
        )


def _read(labels: Artifact) -> pl.DataFrame:
    """Return the part's rows as keys; a log without users has none that is known."""
    table = labels.scan("labels")
    user = pl.col("user_id") if "user_id" in table.collect_schema().names() else pl.lit(None, pl.String)
    return table.select(
        "request_id", "request", "target",
        user_id=user.cast(pl.String),
        user=user.cast(pl.String).hash(SEED),
        item=pl.col("item_id").cast(pl.String).hash(SEED),
        at=pl.col("shown_at").dt.epoch("us"),
    ).collect(engine="streaming")  # fmt: skip


def _counts(day: _Day, repeats: Repeats) -> dict[str, int]:
    """Count the clusters of two copies and more, the bots' requests, and what ``leave_out`` would leave out."""
    copied, rows = repeats.copies > 1, day.request
    cluster = repeats.cluster[rows][copied[rows]]
    key = mixed(cluster.astype(np.uint64)) + day.item[copied[rows]]
    _, differs = contradicted(key, np.zeros(len(key), np.int64), day.target[copied[rows]], within=0)
    gone = ~repeats.kept
    return {
        "rows": len(rows),
        "requests": len(copied),
        "clusters": len(np.unique(cluster)),
        "clustered_requests": int(copied.sum()),
        "clustered_rows": len(cluster),
        "contradictory_clusters": len(np.unique(cluster[differs])),
        "contradictory_rows": int(differs.sum()),
        "bot_requests": int(repeats.bot.sum()),
        "bot_rows": int(repeats.bot[rows].sum()),
        "left_out_requests": int(gone.sum()),
        "left_out_rows": int(gone[rows].sum()),
        "positives": int(day.target.sum()),
        "left_out_positives": int(day.target[gone[rows]].sum()),
    }


def _weighed(day: _Day, weight: NDArray[np.float64]) -> dict[str, float]:
    rows = weight[day.request]
    return {"effective_rows": float(rows.sum()), "effective_positives": float(rows @ day.target)}


def _totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums = summed(records, COUNTS)
    rows, positives = (sum(one[f"effective_{name}"] for one in records) for name in ("rows", "positives"))
    return {
        **sums,
        "bots": len({bot for one in records for bot in one["bots"]}),
        "clustered_share": sums["clustered_requests"] / sums["requests"],
        "contradictory_share": sums["contradictory_clusters"] / max(sums["clusters"], 1),
        "bot_share": sums["bot_rows"] / sums["rows"],
        "effective_rows": rows,
        "effective_positives": positives,
        "base_rate": {"as_logged": sums["positives"] / sums["rows"], "by_rule": positives / rows if rows else 0.0},
    }


def _same_pair(parts: Sequence[Part], labels: Artifact, *, within: timedelta) -> dict[str, Any]:
    """Count the rows whose user saw the item again within the window, and those of them with differing targets."""
    closed = parse_time(labels.record["cutoff"]) - timedelta(hours=labels.record["matures_after_hours"])
    since = closed - 2 * within
    near = [part.artifact for part in parts if since.date() <= part.day <= closed.date()]
    asked = pl.col("shown_at").is_between(since, closed, closed="both")
    none = pl.LazyFrame(schema={"key": pl.UInt64, "at": pl.Int64, "target": pl.Int8})
    rows = pl.concat([none, *(_pairs(part.scan("labels"), asked) for part in near)]).collect(engine="streaming")
    again, differs = contradicted(
        rows["key"].to_numpy(), rows["at"].to_numpy(), rows["target"].to_numpy(), within=within // US
    )
    share = float(differs.sum()) / max(int(again.sum()), 1)
    return {"rows": int(again.sum()), "contradictory_rows": int(differs.sum()), "contradictory_share": share}


def _pairs(table: pl.LazyFrame, asked: pl.Expr) -> pl.LazyFrame:
    if "user_id" not in table.collect_schema().names():
        return pl.LazyFrame(schema={"key": pl.UInt64, "at": pl.Int64, "target": pl.Int8})
    key = pl.struct(pl.col("user_id").cast(pl.String), pl.col("item_id").cast(pl.String)).hash(SEED)
    known = table.filter(asked, pl.col("user_id").is_not_null())
    return known.select(key=key, at=pl.col("shown_at").dt.epoch("us"), target=pl.col("target"))
