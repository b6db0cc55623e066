"""Inflation against a resampling written out by hand, and what it says in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sameworld.models.inflation import Inflation, in_words
from sameworld.models.judging import Judged

USERS, DRAWS, SEED = 30, 200, 4
MOMENT = "2026-03-20T00:00:00Z"


def rows(seed: int = 0, requests: int = 120, size: int = 4) -> Judged:
    rng, n = np.random.default_rng(seed), requests * size
    probability = rng.uniform(0.05, 0.5, n)
    target = (rng.random(n) < probability).astype(float)
    request = np.repeat(np.arange(requests), size)
    return Judged(request, request % USERS, rng.integers(0, 9, n), target, target, probability, probability, np.ones(n))


def let_in(judged: Judged, seed: int = 1) -> Judged:
    """The same rows, some of the negatives turned into positives."""
    target = np.maximum(judged.target, np.random.default_rng(seed).random(len(judged.target)) < 0.1)
    return replace(judged, target=target, gain=target)


def by(judged: Judged) -> Inflation:
    return Inflation(judged, SEED, DRAWS)


def test_the_interval_is_that_of_the_difference_with_the_same_users_drawn_for_both() -> None:
    """Each draw counts the rows of a user as often as that user was drawn."""
    honest, other = rows(), let_in(rows())
    found = by(honest).of("calibration_ratio", other)["inflation"]
    times = np.random.Generator(np.random.PCG64(SEED)).poisson(1.0, size=(DRAWS, USERS))[:, honest.user]
    predicted = (times * honest.probability).sum(axis=1)
    moved = predicted / (times * other.target).sum(axis=1) - predicted / (times * honest.target).sum(axis=1)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(moved, [2.5, 97.5])))
    total = honest.probability.sum()
    assert found["value"] == pytest.approx(total / other.target.sum() - total / honest.target.sum())


@pytest.mark.parametrize("name", ["normalised_entropy", "calibration_ratio", "auc", "ece", "mrr", "ndcg@3"])
def test_a_difference_is_the_value_minus_the_honest_value_and_turns_round_with_its_reads(name: str) -> None:
    honest, other = rows(2), let_in(rows(2))
    there, back = by(honest).of(name, other), by(other).of(name, honest)
    assert there["inflation"]["value"] == there["value"] - there["honest"] != 0.0
    assert (there["value"], there["honest"]) == (back["honest"], back["value"])
    assert back["inflation"]["low"] == pytest.approx(-there["inflation"]["high"])


@pytest.mark.parametrize("same", [True, False], ids=["the very rows", "a copy of them"])
def test_the_same_read_inflates_by_exactly_0(same: bool) -> None:
    honest = rows(3)
    other = honest if same else replace(honest, target=honest.target.copy())
    for name in ("normalised_entropy", "auc", "ndcg@3"):
        assert by(honest).of(name, other)["inflation"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_what_one_read_lacks_is_missing_in_the_difference_and_what_both_lack_altogether() -> None:
    honest = rows(4)
    nothing = replace(honest, target=np.zeros(len(honest.target)))
    found = by(nothing).of("auc", honest)
    assert (set(found["honest"]), set(found["inflation"]), type(found["value"])) == ({"cannot"}, {"cannot"}, float)
    assert set(by(nothing).of("auc", nothing)) == {"cannot"}


def told(value: float, half: float) -> dict[str, Any]:
    moved = {"value": value, "low": value - half, "high": value + half}
    return {"value": 0.5 + value, "honest": 0.5, "inflation": moved}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("normalised_entropy", -0.1, "Lower looks better: the model would have looked better than was known."),
        ("normalised_entropy", 0.1, "Lower looks better: the model would have looked worse than was known."),
        ("auc", 0.1, "Higher looks better: the model would have looked better than was known."),
        ("auc", 0.01, "the model would not have looked clearly better or worse."),
    ],
)
def test_words_say_which_side_looks_better_and_which_way_it_went(name: str, value: float, said: str) -> None:
    assert in_words(name, told(value, 0.05), moment=MOMENT, anything=True).endswith(said)


def test_words_give_the_reason_where_there_is_no_number() -> None:
    found = {"value": 0.5, "honest": {"cannot": "no purchase"}, "inflation": {"cannot": "no purchase"}}
    for one in (found, {"cannot": "no purchase"}):
        words = in_words("normalised_entropy", one, moment=MOMENT, anything=True)
        assert words.endswith("normalised entropy would have moved by what cannot be said: no purchase.")
