"""Read early: how the back-test's model does on the youngest rows, as far as can be known of them."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.delay import DelayCurve
from sameworld.models.bundle import load_bundle
from sameworld.models.early import calibration, ranking
from sameworld.models.judging import lengths_asked
from sameworld.models.scored_rows import judged_rows
from sameworld.records import Cannot
from sameworld.store.artifacts import Artifact
from sameworld.store.parts import ALL, completeness, examples_of, usable_curves
from sameworld.store.step import Work, step
from sameworld.store.times import parse_day, parse_time, time_text

Floats = NDArray[np.float64]


@step(
    reads=(
        *("label.gains", "label.target", "decide.metric"),
        *("evaluate.at", "evaluate.seed", "evaluate.replicates"),
    )
)
def run(work: Work, *, examples: Artifact, delay: Artifact, bundle: Artifact, look_back: Artifact) -> None:
    """Judge the bundle of C₀ on the rows shown since its deploy lag that are still OPEN, by what is known of them.

    What is known so far is compared with what could be known so far, by each row's age and segment; a gain that is
    known weighs one over that in the ranking metric. No closed row is among them, so these days' matured value, once
    they close, is a judge of this read.
    """
    since = max(parse_time(look_back.record[name]) for name in ("from", "to"))
    cutoff = parse_time(str(examples.record["cutoff"]))
    table = _open_rows(work, examples, since)
    if not len(table):
        work.record = Cannot(f"no impression shown since {time_text(since)} is still open").as_record()
        return
    judged = judged_rows(table, load_bundle(bundle))
    by_kind = _completeness(delay, sorted(work.spec.label.gains), table)
    corrected = _corrected(work, table, by_kind)
    draw = {"seed": work.spec.evaluate.seed, "replicates": work.spec.evaluate.replicates}
    of_target = by_kind.get(work.spec.label.target, np.zeros(len(table)))
    work.rows = len(table)
    work.record = {
        "rows": len(table),
        "requests": int(judged.request[-1]) + 1,
        "positives": int(judged.target.sum()),
        "from": time_text(since),
        "to": time_text(cutoff),
        "completeness": float(of_target.mean()),
        **calibration(judged, of_target, **draw),
        **{name: ranking(name, judged, corrected, _least(by_kind, table), **draw) for name in _asked(work)},
    }


def _open_rows(work: Work, examples: Artifact, since: datetime) -> pl.DataFrame:
    """Return the open rows in the order of the training set: a request's together."""
    cutoff = parse_time(str(examples.record["cutoff"]))
    if not any(parse_day(part["day"]) >= since.date() for part in examples.record["parts"]):
        return pl.DataFrame()
    rows = examples_of(examples, work.store, since=since, before=cutoff)
    return rows.filter(pl.col("shown_at") >= since, ~pl.col("closed")).collect(engine="streaming")


def _completeness(delay: Artifact, kinds: list[str], table: pl.DataFrame) -> dict[str, Floats]:
    """Return by kind the share of its outcomes that can be known at each row's age.

    A segment without a curve takes that of all; a kind without any, of which nothing ever arrived, is left out.
    """
    found = {}
    for kind in kinds:
        curves = usable_curves(delay.record["curves"][kind])
        if ALL in curves:
            read = {name: DelayCurve.from_record(dict(curve)) for name, curve in curves.items()}
            found[kind] = completeness(table, read)
    return found


def _least(by_kind: dict[str, Floats], table: pl.DataFrame) -> Floats:
    """Return the least completeness of any kind, of each row."""
    return np.min(list(by_kind.values()), axis=0) if by_kind else np.zeros(len(table))


def _corrected(work: Work, table: pl.DataFrame, by_kind: dict[str, Floats]) -> Floats:
    """Return the gain known so far, each kind's part over that kind's completeness (as it is where that is 0)."""
    total = np.zeros(len(table))
    for kind, known in by_kind.items():
        happened = table[f"is_{kind}"].cast(pl.Float64).to_numpy()
        total += work.spec.label.gains[kind] * happened / np.where(known > 0.0, known, 1.0)
    return total


def _asked(work: Work) -> list[str]:
    return [f"ndcg@{k}" for k in sorted(set(lengths_asked(work.spec.evaluate.at, work.spec.decide.metric)))]
