"""Find the earlier cutoff whose bundle today's log can judge: the back-test of the contract's section 4."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import polars as pl

from sameworld.records import Cannot
from sameworld.store.artifacts import Artifact
from sameworld.store.log import Log
from sameworld.store.step import Work, step
from sameworld.store.times import time_text


@step(reads=("label.window_days", "backtest.days", "backtest.deploy_lag_hours"))
def run(work: Work, *, log: Artifact, delay: Artifact) -> None:
    """Find C₀ = C − landing lag − window − ``backtest.days``, at a day's start.

    A model of everything known at C₀ is then scored on the requests shown from C₀ + deploy lag on whose labels have
    closed by C. There is none where the log begins after C₀.
    """
    lag = timedelta(hours=delay.record["lag_hours"])
    window = timedelta(days=work.spec.label.window_days)
    closed_before = work.now - lag - window
    earlier = datetime.combine((closed_before - timedelta(days=work.spec.backtest.days)).date(), time(), tzinfo=UTC)
    begins = Log.open(log, work.store).table("impressions").select(pl.col("shown_at").min()).collect().item()
    if begins is None or begins >= earlier:
        began = time_text(begins) if begins else "not yet"
        work.record = Cannot(
            f"no back-test: the log begins {began}, and the model to judge would have been trained at "
            f"{time_text(earlier)}, before which nothing was shown"
        ).as_record()
        return
    work.record = {
        "cutoff": time_text(earlier),
        "from": time_text(earlier + timedelta(hours=work.spec.backtest.deploy_lag_hours)),
        "to": time_text(closed_before),
    }
