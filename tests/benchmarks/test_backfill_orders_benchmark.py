"""The benchmark of backfill orders finds what it should find: another step, other bytes, an artifact too many."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from benchmarks.backfill_orders import SIZES, Order, compared, nothing_new

DAY = date(2026, 3, 9)
FORWARD = Order({DAY: (("label", "aa"), ("train", "bb"))}, {"label/aa": "1", "train/bb": "2"}, 1, 1.0)


def holding(other: Order) -> list[bool]:
    return [claim.holds for claim in compared("backward", {"forward": FORWARD, "backward": other})]


def test_equal_orders_agree() -> None:
    assert holding(FORWARD) == [True, True]
    assert nothing_new(FORWARD, FORWARD).holds


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"steps": {DAY: (("label", "aa"), ("train", "cc"))}}, [False, True]),
        ({"steps": {DAY: (("label", "aa"),)}}, [False, True]),
        ({"content": {"label/aa": "1", "train/bb": "3"}}, [True, False]),
        ({"content": {"label/aa": "1"}}, [True, False]),
        ({"content": {**FORWARD.content, "train/cc": "2"}}, [True, False]),
    ],
)
def test_any_difference_fails_the_claim_that_it_belongs_to(change: dict[str, object], wanted: list[bool]) -> None:
    other = replace(FORWARD, **change)  # type: ignore[arg-type]
    assert holding(other) == wanted
    assert not nothing_new(FORWARD, other).holds


def test_the_days_that_are_run_are_the_drops_last() -> None:
    assert len(SIZES["full"].wanted) == 30
    assert SIZES["small"].wanted == [date(2026, 3, 7), date(2026, 3, 8), DAY]
