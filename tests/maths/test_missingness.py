"""Null masks travel whole, outages are found again, and skew is counted exactly."""

import json
import re

import numpy as np
import pytest

from sameworld.maths.missingness import (
    Skew,
    donor_masks,
    null_mask_patterns,
    outage_groups,
    psi,
    request_null_masks,
    skew_of,
)
from sameworld.records import Refused

USER, ITEM = [0, 2, 5], [1, 3]  # features of two services; 4 and 6 never fail


def served_log(*, seed, requests=4000, size=5):
    """Row masks of a log: both services down 15 % of the time, else the user's 12 % and the item's 8 %; stray nulls."""
    generator = np.random.default_rng(seed)
    shared, own = generator.random(requests) < 0.15, generator.random((requests, 2)) < (0.12, 0.08)
    mask = np.zeros((requests, 7), dtype=bool)
    mask[:, USER] = (shared | own[:, 0])[:, None]
    mask[:, ITEM] = (shared | own[:, 1])[:, None]
    rows = np.repeat(mask, size, axis=0)
    return rows | (generator.random(rows.shape) < 0.01), np.repeat(np.arange(requests), size), mask


def test_stray_nulls_of_single_rows_do_not_enter_a_requests_mask():
    rows, request, truth = served_log(seed=1)
    assert np.mean(request_null_masks(rows, request) != truth) < 1e-3
    assert np.mean(rows[::5] != truth) > 5e-3


def test_exactly_half_of_the_rows_is_no_majority():
    mask = np.array([[True, True], [False, True], [False, False], [True, True]])
    assert request_null_masks(mask, np.array([0, 0, 0, 0])).tolist() == [[False, True]]
    assert request_null_masks(mask, np.array([0, 0, 1, 1])).tolist() == [[False, True], [False, False]]


def test_patterns_count_each_request_once_and_come_commonest_first():
    rows, request, _ = served_log(seed=2)
    found, by_request = null_mask_patterns(rows, request), request_null_masks(rows, request)
    assert found.requests.sum() == 4000
    assert (np.diff(found.requests) <= 0).all()
    for mask, count in zip(found.masks, found.requests, strict=True):
        assert (by_request == mask).all(axis=1).sum() == count


def test_patterns_tell_features_apart_beyond_the_eighth():
    mask = np.zeros((3, 11), dtype=bool)
    mask[0, 10] = mask[1, 9] = True
    assert null_mask_patterns(mask, np.arange(3)).masks.sum(axis=0).tolist() == [0] * 9 + [1, 1]


def test_every_row_of_a_request_gets_one_donors_whole_mask():
    rows, request, _ = served_log(seed=3, requests=300)
    logged = request_null_masks(rows, request)
    given = donor_masks(np.repeat(np.arange(1000), 4), logged, seed=1).reshape(1000, 4, 7)
    assert (given == given[:, :1]).all()
    known = {mask.tobytes() for mask in logged}
    assert all(mask.tobytes() in known for mask in given[:, 0].copy())


def test_donor_masks_keep_how_often_features_are_null_and_null_together():
    rows, request, _ = served_log(seed=4)
    logged = request_null_masks(rows, request).astype(float)
    given = donor_masks(np.arange(20_000), logged > 0, seed=2).astype(float)
    assert given.mean(axis=0) == pytest.approx(logged.mean(axis=0), abs=0.02)
    assert given.T @ given / 20_000 == pytest.approx(logged.T @ logged / len(logged), abs=0.02)


def test_donors_repeat_with_the_seed_and_change_with_it():
    mask, request = np.eye(50, dtype=bool), np.arange(200)
    assert np.array_equal(donor_masks(request, mask, seed=1), donor_masks(request, mask, seed=1))
    assert not np.array_equal(donor_masks(request, mask, seed=1), donor_masks(request, mask, seed=2))


def test_a_log_without_served_features_has_no_donor():
    with pytest.raises(Refused, match=re.escape("no logged request to take null masks from")):
        donor_masks(np.array([0, 1]), np.zeros((0, 3), dtype=bool), seed=1)


def test_outage_groups_are_the_services_and_not_their_shared_upstream():
    rows, request, truth = served_log(seed=5)
    groups = outage_groups(request_null_masks(rows, request))
    assert [group.features for group in groups] == [tuple(USER), tuple(ITEM)]
    expected = [truth[:, USER[0]].mean(), truth[:, ITEM[0]].mean()]
    assert [group.request_share for group in groups] == pytest.approx(expected, abs=2e-3)


def test_a_log_without_nulls_has_no_outage():
    assert outage_groups(np.zeros((10, 3), dtype=bool)) == ()


def test_features_that_are_null_independently_stand_alone():
    mask = np.random.default_rng(6).random((2000, 3)) < (0.3, 0.2, 0.1)
    assert [group.features for group in outage_groups(mask)] == [(0,), (1,), (2,)]


def unmoved(values) -> list[tuple[()]]:
    return [()] * len(values)


def test_skew_counts_equal_what_was_injected():
    truth = np.arange(1000, dtype=float)
    served, recomputed = truth.copy(), truth.copy()
    served[:30] += 0.5
    served[30:50], recomputed[50:57] = np.nan, np.nan
    served[57:60], recomputed[57:60] = np.nan, np.nan  # null on both sides agrees
    found = skew_of(served, recomputed, unmoved(served))
    assert found == Skew(compared=1000, mismatch=30, missing=20, extra=7)
    assert found.shares()["missing_share"] == 0.02


def test_the_smallest_difference_is_a_mismatch_and_a_signed_zero_is_none():
    assert skew_of([1.0], [np.nextafter(1.0, 2.0)], [()]).mismatch == 1
    assert skew_of([0.0], [-0.0], [()]).mismatch == 0


def test_stale_values_are_mismatches_that_equal_any_earlier_value():
    current = np.arange(100.0) + 2.0
    served = np.where(np.arange(100) < 20, current - 2.0, current)
    served[20:25] = -7.0
    found = skew_of(served, current, [(value - 2.0, value - 1.0) for value in current])
    assert (found.mismatch, found.stale) == (25, 20)


def test_a_value_that_was_there_before_and_is_again_is_not_stale():
    assert skew_of([1.0], [1.0], [(1.0, 2.0)]).stale == 0


def test_skew_of_strings_knows_none_as_null():
    assert skew_of(["a", None, "b", None], ["a", "x", None, None], unmoved("abcd")) == Skew(4, 0, 1, 1)
    assert skew_of(["a", "b"], ["a", "c"], unmoved("ab")).mismatch == 1
    assert skew_of(["1"], [1], [()]).mismatch == 1


def test_skew_of_no_rows_is_refused():
    with pytest.raises(Refused, match=re.escape("nothing to compare: got 0 rows")):
        skew_of([], [], [])


def test_skews_add_up_and_without_a_row_every_share_says_cannot():
    one, other = Skew(10, 4, 3, 2, 1), Skew(5, 1, 1, 1, 1)
    assert one + other == Skew(15, 5, 4, 3, 2)
    shares = json.loads(json.dumps(Skew().shares()))
    assert [name for name, one in shares.items() if one == {"cannot": "no row was compared"}] == [
        f"{name}_share" for name in ("mismatch", "missing", "extra", "stale")
    ]


def test_psi_equals_the_textbook_sum_over_bins():
    generator = np.random.default_rng(7)
    before, after = generator.normal(0, 1, 20_000), generator.normal(0.5, 1, 20_000)
    edges = np.concatenate([[-np.inf], np.quantile(before, np.arange(1, 10) / 10), [np.inf]])
    e, a = np.histogram(before, edges)[0] / 20_000, np.histogram(after, edges)[0] / 20_000
    assert psi(before, after) == pytest.approx(np.sum((a - e) * np.log(a / e)), rel=1e-2)


def test_psi_is_blind_to_a_shuffled_join_which_skew_sees():
    values = np.random.default_rng(8).normal(size=5000)
    shuffled = np.random.default_rng(9).permutation(values)
    assert psi(values, shuffled) == 0.0
    assert skew_of(shuffled, values, unmoved(values)).mismatch > 0.99 * len(values)


def test_psi_sees_a_risen_null_rate_and_takes_constants_and_all_nulls():
    values, fewer = np.arange(1000.0), np.where(np.arange(1000) % 2 == 0, np.nan, np.arange(1000.0))
    assert psi(values, fewer) > 0.25
    assert psi(np.full(10, 3.0), np.full(20, 3.0)) == 0.0
    assert psi(np.full(10, np.nan), np.full(10, np.nan)) == 0.0
    with pytest.raises(Refused, match=re.escape("nothing to compare")):
        psi([], values)
