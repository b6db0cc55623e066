"""The leak meter through the whole flow: a late world's figures from its drop's own files, a punctual world's zeros."""

from __future__ import annotations

import functools
import math
import shutil
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from whole.small_days import Tree, content, copied, days_of, fresh, loop_tree, made_by, run, shop, tree_of

from sameworld.models.bundle import load_bundle
from sameworld.models.rank import rank
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.store.artifacts import Artifact
from tasks.report import Written

ZERO = {"value": 0.0, "low": 0.0, "high": 0.0}
LAST = 14


@functools.cache
def world(lag_hours: float, seed: int = 3, days: int = LAST + 1) -> Path:
    """A small closed loop whose outcomes land this late on average, within the window of a day mostly."""
    out = fresh("leak") / "drop"
    sizes: Tree = {
        "requests_per_day": 60,
        "users": 80,
        "items": 40,
        "candidates": 8,
        "slots": 4,
    }
    lags = {"click_lag_hours": lag_hours, "purchase_lag_hours": lag_hours, "fast_delay_days": 0.1,
            "slow_delay_days": 0.3, "purchase_intercept": 0.5}  # fmt: skip
    write_drop(out, WorldParameters(seed=seed, days=days, window_days=1.0, candidates_share=0.0, **sizes, **lags))
    return out


def tree(drop: Path) -> Tree:
    return {**loop_tree(drop, window_days=1, segments=[]), "backtest": {"days": 1}}


@functools.cache
def ran(lag_hours: float) -> tuple[Path, Written]:
    root, drop = fresh("root"), world(lag_hours)
    return root, run(root, tree(drop), days_of(drop)[LAST - 1], only="measure_leak")


def leak_of(lag_hours: float) -> dict[str, Any]:
    return made_by(*ran(lag_hours), "measure_leak").record


def table(drop: Path, name: str) -> list[dict[str, Any]]:
    """Every row of a table that arrived by the run's day, whatever its order."""
    files = [one for day in days_of(drop)[:LAST] for one in sorted((drop / f"day={day}" / name).glob("*.parquet"))]
    return pl.concat([pl.read_parquet(one) for one in files], how="diagonal_relaxed").to_dicts()


def entropy_by_hand(drop: Path, bundle: Artifact, since: datetime, until: datetime, *, by_event: bool) -> float:
    """Normalised entropy of the rows that had arrived by then, purchases counted by arrival or as they happened."""
    rows = [one for one in table(drop, "impressions") if since <= one["shown_at"] < until > one["arrived_at"]]
    bought = defaultdict(list)
    for one in table(drop, "outcomes"):
        if one["kind"] == "purchase" and one["happened_at" if by_event else "arrived_at"] < until:
            bought[one["request_id"], one["item_id"]].append(one["happened_at"])
    model = load_bundle(bundle)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    p = [
        a * float(model.examination_at(frame["position"].to_numpy())[number])
        for number, a in enumerate(rank(frame, model)["probability"])
    ]
    y = [
        any(when < one["shown_at"] + timedelta(days=1) for when in bought[one["request_id"], one["item_id"]])
        for one in rows
    ]
    rate = sum(y) / len(y)
    loss = -sum(math.log(a) if b else math.log(1 - a) for a, b in zip(p, y, strict=True)) / len(y)
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))


def test_a_world_whose_outcomes_land_two_days_late_is_inflated_as_its_drop_says() -> None:
    found, drop = leak_of(48.0), world(48.0)
    bundle = made_by(*ran(48.0), "backtest.calibrate")
    since, until = (datetime.fromisoformat(found[name]).astimezone(UTC) for name in ("from", "to"))
    honest, naive = (entropy_by_hand(drop, bundle, since, until, by_event=one) for one in (False, True))
    assert found["honest"] == pytest.approx(honest, rel=1e-6)
    assert found["value"] == pytest.approx(naive, rel=1e-6)
    assert found["late_outcomes"] > 50
    assert not found["inflation"]["low"] <= 0.0 <= found["inflation"]["high"]


def test_the_moment_is_the_newest_day_whose_eve_has_landed() -> None:
    cutoff = datetime.fromisoformat(f"{days_of(world(48.0))[LAST]}T00:00:00+00:00")
    lag = timedelta(hours=made_by(*ran(48.0), "measure_delay").record["lag_hours"])
    until = datetime.fromisoformat(leak_of(48.0)["to"])
    assert until <= cutoff - lag < until + timedelta(days=1)
    assert until.hour == 0


def test_a_world_whose_outcomes_land_at_once_is_inflated_by_exactly_0() -> None:
    found = leak_of(1e-7)
    assert (found["late_outcomes"], found["inflation"], found["by_source"]["outcomes"]["inflation"]) == (0, ZERO, ZERO)
    assert found["rows"] > 300


def test_fault_24_a_day_after_the_cutoff_of_another_world_changes_no_byte_of_the_leak() -> None:
    drop = copied(world(48.0))
    late, other = days_of(drop)[LAST], world(48.0, seed=4)
    shutil.rmtree(drop / f"day={late}")
    shutil.copytree(other / f"day={late}", drop / f"day={late}")
    root = fresh("noise")
    run(root, tree(drop), days_of(drop)[LAST - 1], only="measure_leak")
    assert content(root) == content(ran(48.0)[0])
    assert any(name.startswith("artifacts/measure_leak/") for name in content(root))


def test_a_joined_view_that_lands_in_time_leaks_nothing_but_as_of_today_it_would_move_the_metric() -> None:
    made, views = shop("news_feed"), {"features": {"views": {"author_stats": ["author_followers"]}}}
    found = run(fresh("views"), {**tree_of(made), **views}, made.days[-1], only="measure_leak").report["leak"]
    assert found["by_source"]["author_stats"]["inflation"] == ZERO
    assert found["inflation"] == found["by_source"]["outcomes"]["inflation"]
    assert found["snapshot"]["author_stats"]["inflation"]["value"] != 0.0
    assert set(found["metrics"]) == {"normalised_entropy", "calibration_ratio", "auc", "ndcg@5"}


def test_without_a_back_test_the_leak_cannot_be_measured() -> None:
    drop = world(48.0)
    found = run(fresh("young"), tree(drop), days_of(drop)[3], only="measure_leak").report["leak"]
    assert set(found) == {"cannot"}
