"""Items' statistics: against plain loops over the log, never of the future or the row itself, debiased, and shrunk."""

import numpy as np
import pytest

from sameworld.maths.item_history import Came, Shown, item_history, shrunk_log_ratio

ITEMS, DAYS = 7, 9
COMPLETENESS = np.array([[0.5, 0.8, 1.0], [0.2, 0.4, 0.9]])


def log(seed=0, n=600):
    """Impressions over nine days, and the outcomes of some of them, known up to four days later."""
    rng = np.random.default_rng(seed)
    day = rng.integers(DAYS, size=n)
    shown = Shown(rng.integers(ITEMS, size=n), day, rng.integers(2, size=n), rng.choice([1.0, 0.5, 0.25], n))
    rows = np.flatnonzero(rng.random(n) < 0.3)
    return shown, Came(shown.item[rows], day[rows], day[rows] + rng.integers(5, size=len(rows)))


def history(shown, came, half_life_days=3.0, today=DAYS, completeness=COMPLETENESS, items=ITEMS):
    return item_history(shown, came, completeness=completeness, half_life_days=half_life_days, items=items, today=today)


def by_loops(shown, came, half_life_days, day):
    """The sums at the start of a day, one impression and one outcome at a time."""
    outcomes, exposure = np.zeros(ITEMS), np.zeros(ITEMS)
    for item, then, segment, seen in zip(shown.item, shown.day, shown.segment, shown.examination, strict=True):
        if then < day:
            age = day - then
            known = COMPLETENESS[segment, age - 1] if age <= 3 else 1.0
            exposure[item] += 0.5 ** ((age - 1) / half_life_days) * seen * known
    for item, then, known in zip(came.item, came.day_shown, came.day_known, strict=True):
        if known < day:
            outcomes[item] += 0.5 ** ((day - 1 - then) / half_life_days)
    return shrunk_log_ratio(outcomes, exposure)


@pytest.mark.parametrize("half_life_days", [0.7, 3.0, 1e9])
def test_every_day_agrees_with_plain_loops_over_the_log(half_life_days):
    shown, came = log()
    found = history(shown, came, half_life_days)
    for day in range(DAYS):
        slow = by_loops(shown, came, half_life_days, day)
        np.testing.assert_allclose(found.rows[shown.day == day], slow[shown.item[shown.day == day]], atol=1e-9)
    np.testing.assert_allclose(found.latest, by_loops(shown, came, half_life_days, DAYS), atol=1e-9)


def test_what_became_known_on_a_day_or_later_changes_no_row_of_that_day():
    shown, came = log()
    kept = came.day_known < 5
    earlier = Came(came.item[kept], came.day_shown[kept], came.day_known[kept])
    whole, cut = history(shown, came), history(shown, earlier)
    young = shown.day <= 5
    np.testing.assert_array_equal(whole.rows[young], cut.rows[young])
    assert np.any(whole.rows[~young] != cut.rows[~young])


def test_a_row_is_never_in_its_own_statistic_nor_any_of_its_day():
    shown, came = log()
    moved = Shown(shown.item, shown.day, shown.segment, np.where(shown.day == 4, 1e-6, shown.examination))
    whole, without = history(shown, came), history(moved, came)
    np.testing.assert_array_equal(whole.rows[shown.day <= 4], without.rows[shown.day <= 4])


def test_the_order_of_the_rows_changes_no_statistic():
    shown, came = log()
    order = np.random.default_rng(1).permutation(len(shown.item))
    again = history(Shown(*(column[order] for column in vars(shown).values())), came)
    np.testing.assert_allclose(again.rows, history(shown, came).rows[order], atol=1e-12)


def test_an_item_that_always_stood_low_and_one_that_stood_high_have_equal_rates():
    rng, n = np.random.default_rng(2), 40_000
    item = np.arange(n) % 2
    seen = np.where(item == 0, 1.0, 0.2)
    rows = np.flatnonzero(rng.random(n) < 0.3 * seen)
    shown = Shown(item, np.zeros(n, np.int64), np.zeros(n, np.int64), seen)
    came = Came(item[rows], np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64))
    found = history(shown, came, today=1, completeness=np.ones((1, 1)), items=2)
    assert abs(found.latest[0] - found.latest[1]) < 0.1


def test_young_impressions_count_as_far_as_their_outcomes_can_be_known():
    rng, n = np.random.default_rng(3), 60_000
    item, day = np.arange(n) % 2, np.where(np.arange(n) % 2 == 0, 0, 8)
    after = rng.geometric(0.5, n) - 1  # half of the outcomes are known the same day, half of the rest the next
    rows = np.flatnonzero((rng.random(n) < 0.3) & (day + after < DAYS))
    shown = Shown(item, day, np.zeros(n, np.int64), np.ones(n))
    known = 1.0 - 0.5 ** np.arange(1.0, 12.0)[None, :]
    found = history(shown, Came(item[rows], day[rows], day[rows] + after[rows]), 1e9, completeness=known, items=2)
    assert abs(found.latest[0] - found.latest[1]) < 0.05


def test_an_item_that_was_never_shown_is_average_and_so_is_all_before_any_outcome():
    shown, came = log()
    never = history(shown, came, items=ITEMS + 1).latest[ITEMS]
    nothing = history(shown, Came(*(np.zeros(0, np.int64) for _ in range(3))))
    assert (never, np.abs(nothing.rows).max(), np.abs(nothing.latest).max()) == (0.0, 0.0, 0.0)


def test_the_prior_is_as_strong_as_items_are_alike():
    rng, exposure = np.random.default_rng(4), np.full(4000, 60.0)
    rate = rng.gamma(8.0, 0.1 / 8.0, 4000)
    found = np.exp(shrunk_log_ratio(rng.poisson(rate * exposure).astype(float), exposure)) * 0.1
    raw = rng.poisson(rate * exposure) / exposure
    best = 8.0 / (8.0 + 6.0)  # of an item's own rate, in the posterior mean of a gamma-Poisson model
    slope = np.polyfit(rng.permutation(1) + rate, found, 1)[0]
    assert slope == pytest.approx(1 - best, abs=0.03)
    assert np.mean((found - rate) ** 2) < 0.6 * np.mean((raw - rate) ** 2)
