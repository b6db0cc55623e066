"""A model's choices beside how the logging model would have drawn them, against every order written out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from models import tiny

from sameworld.maths.loop import TargetRows
from sameworld.models.exploration import target_rows
from sameworld.models.rank import rank

THETA = (1.0, 0.5, 0.25)
SHOWN = 3


def a_log(seed: int, requests: int = 12) -> dict[str, pl.DataFrame]:
    """Draw candidates with features, a logging model's scores, and what was shown and gained."""
    rng = np.random.default_rng(seed)
    candidates = tiny.candidates(requests, 5, seed)
    scored = candidates.select("request_id", "item_id", score=pl.Series(rng.normal(size=len(candidates))))
    lists = scored.group_by("request_id", maintain_order=True).agg(candidates=pl.struct("item_id", "score"))
    policies = lists.with_columns(tau=pl.Series(rng.uniform(0.3, 1.0, requests)), epsilon=pl.lit(0.2))
    shown = candidates.group_by("request_id", maintain_order=True).head(SHOWN).select("request_id", "item_id")
    shown = shown.with_columns(
        position=pl.int_range(1, pl.len() + 1).over("request_id").cast(pl.Int32),
        user_id=pl.lit("u") + (pl.col("request_id").str.slice(1).cast(pl.Int64) % 4).cast(pl.String),
        gain=pl.Series(rng.choice([0.0, 0.0, 1.0, 5.0], len(shown))),
    )
    return {"shown": shown, "candidates": candidates, "policies": policies}


def drawn_by_hand(row: dict[str, Any], item: str, place: int) -> float:
    """Plackett-Luce probability of an item at a place, over all orders."""
    weight = {one["item_id"]: math.exp(one["score"] / row["tau"]) for one in row["candidates"]}
    total = 0.0
    for order in itertools.permutations(weight, place):
        if order[-1] == item:
            left = [sum(weight.values()) - sum(weight[one] for one in order[:k]) for k in range(place)]
            total += math.prod(weight[one] / rest for one, rest in zip(order, left, strict=True))
    return total


def found(log: dict[str, pl.DataFrame]) -> TargetRows:
    rows = target_rows(**log, bundle=tiny.bundle())
    assert rows is not None
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_each_choice_is_the_models_with_the_chance_that_all_orders_give_it(seed: int) -> None:
    log = a_log(seed)
    ordered = rank(log["candidates"], tiny.bundle()).filter(pl.col("position") <= SHOWN).sort("request_id", "position")
    policies = {row["request_id"]: row for row in log["policies"].to_dicts()}
    by_hand = [drawn_by_hand(policies[name], item, place)
               for name, item, place in ordered.select("request_id", "item_id", "position").iter_rows()]  # fmt: skip
    rows = found(log)
    np.testing.assert_allclose(rows.drawn, by_hand, atol=1e-7)
    assert rows.candidates.tolist() == [5] * len(by_hand)
    assert rows.request.tolist() == np.repeat(np.arange(12), SHOWN).tolist()
    assert len(set(rows.user.tolist())) == 4


def test_gains_are_scaled_to_the_log_and_vary_as_the_shown_items_residuals_do() -> None:
    log = a_log(5)
    ranked = rank(log["candidates"], tiny.bundle()).select("request_id", "item_id", "probability", place="position")
    shown = log["shown"].join(ranked, on=["request_id", "item_id"], maintain_order="left")
    q = [p * THETA[k - 1] for p, k in shown.select("probability", "position").iter_rows()]
    worth = shown["gain"].sum() / sum(q)
    factor = sum((g - worth * one) ** 2 for g, one in zip(shown["gain"], q, strict=True)) / (worth * sum(q))
    chosen = ranked.filter(pl.col("place") <= SHOWN).sort("request_id", "place")
    expected = [worth * p * THETA[k - 1] for p, k in chosen.select("probability", "place").iter_rows()]
    np.testing.assert_allclose(found(log).expected, expected, rtol=1e-6)
    np.testing.assert_allclose(found(log).variance, factor * np.array(expected), rtol=1e-6)


def test_a_greedy_log_draws_its_own_order_for_certain() -> None:
    log = a_log(6)
    log["policies"] = log["policies"].with_columns(tau=pl.lit(0.0))
    assert set(found(log).drawn.tolist()) == {0.0, 1.0}


def test_requests_without_all_it_takes_are_left_out() -> None:
    log = a_log(7)
    names = log["policies"]["request_id"].to_list()
    log["policies"] = log["policies"].filter(pl.col("request_id") != names[0]).with_columns(
        tau=pl.when(pl.col("request_id") == names[1]).then(None).otherwise("tau")
    )  # fmt: skip
    log["candidates"] = log["candidates"].filter(pl.col("request_id") != names[2])
    strange = (pl.col("request_id") == names[3]) & (pl.col("position") == 2)
    log["shown"] = log["shown"].with_columns(item_id=pl.when(strange).then(pl.lit("new")).otherwise("item_id"))
    assert int(found(log).request[-1]) + 1 == 12 - 4


@pytest.mark.parametrize("without", ["policies", "candidates", "gain"])
def test_nothing_to_predict_from_is_none(without: str) -> None:
    log = a_log(8)
    if without == "gain":
        log["shown"] = log["shown"].with_columns(gain=pl.lit(0.0))
    else:
        log[without] = log[without].clear()
    assert target_rows(**log, bundle=tiny.bundle()) is None
