"""Which outages are drilled, how often they came and why; and what a model is without their features."""

import numpy as np
import polars as pl
import pytest

from sameworld.models.drilling import Drilled, Outage, null_masks, outages_to_drill, reason_shares
from sameworld.models.judging import Judged, estimate_record, metric_replicates

NAMES = ["x_a", "x_b", "x_c", "x_d"]
NOBODY = {"stats": []}


def masks(*counted):
    """Masks of requests: each a word of the features that they lack, and how many requests lack those."""
    return np.array([[name[-1] in word for name in NAMES] for word, count in counted for _ in range(count)], np.bool_)


def test_a_request_lacks_what_is_null_in_more_than_half_of_its_rows():
    rows = pl.DataFrame({"x_a": [None, 1, None, None], "x_b": [1.0, float("nan"), 2.0, float("nan")],
                         "x_c": ["p", None, None, "q"]})  # fmt: skip
    found = null_masks(rows, ["x_a", "x_b", "x_c", "x_gone"], np.array([0, 0, 1, 1]))
    assert found.tolist() == [[False, False, False, True], [True, False, False, True]]


def test_patterns_come_commonest_first_then_groups_then_views_and_none_twice():
    seen = masks(("", 70), ("ab", 20), ("abc", 6), ("c", 4))
    found = outages_to_drill(seen, NAMES, {"one": ["x_b", "x_a"], "two": ["x_d"]})
    told = [("".join(name[-1] for name in one.features), one.kind) for one in found]
    assert told == [("ab", "pattern"), ("abc", "pattern"), ("c", "pattern"), ("d", "group")]


def test_a_group_that_never_failed_alone_is_drilled_beside_the_patterns_it_was_part_of():
    found = outages_to_drill(masks(("", 60), ("abc", 20), ("abd", 20)), NAMES, NOBODY)
    assert Outage(("x_a", "x_b"), "group") in found


def test_rare_patterns_and_those_beyond_the_eighth_are_left_to_their_groups():
    rare = outages_to_drill(masks(("", 999), ("ac", 1)), NAMES, NOBODY)
    assert [one.kind for one in rare] == ["group"]
    many = [(word, 10) for word in ("a", "b", "c", "d", "ab", "ac", "ad", "bc", "bd", "cd")]
    assert sum(one.kind == "pattern" for one in outages_to_drill(masks(*many), NAMES, NOBODY)) == 8


@pytest.mark.parametrize("seen", [masks(("", 5)), np.zeros((0, 4), np.bool_)])
def test_where_nothing_was_missing_only_views_are_drilled(seen):
    assert outages_to_drill(seen, NAMES, {"stats": ["x_c"]}) == [Outage(("x_c",), "group")]
    assert outages_to_drill(seen, NAMES, NOBODY) == []


def test_reasons_are_shares_of_the_nulls_and_what_is_left_is_not_stated():
    reasons = ["timeout", "timeout", "absent", "absent"]
    stated = pl.DataFrame({"feature": ["x_a", "x_b", "x_a", "x_z"], "reason": reasons, "rows": [3, 3, 2, 50]})
    assert reason_shares(stated, ["x_a", "x_b"], nulls=10) == {"timeout": 0.6, "absent": 0.2, "not stated": 0.2}


def rows(seed=1, requests=60, size=4) -> Judged:
    rng, n = np.random.default_rng(seed), requests * size
    p = rng.uniform(0.05, 0.6, n)
    request = np.repeat(np.arange(requests), size)
    y = (rng.random(n) < p).astype(np.float64)
    return Judged(request, request % 23, np.arange(n) % 9, y, y, p, p, np.ones(n))


def test_the_change_is_paired_so_an_outage_that_changes_nothing_is_exactly_0():
    drilled = Drilled(rows(), ["ndcg@3", "calibration_ratio"], seed=3, replicates=100)
    for found in drilled.metrics(rows()).values():
        assert found["delta"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert found["with"] == found["without"]


def test_a_metric_without_a_number_says_so_in_all_three_places():
    nobody = rows().with_scores(np.zeros(240), None)
    found = Drilled(rows(), ["calibration_ratio"], seed=3, replicates=100).metrics(nobody)["calibration_ratio"]
    assert ("cannot" in found["with"], "cannot" in found["without"], "cannot" in found["delta"]) == (True, False, True)


def test_the_requests_that_were_hit_are_measured_as_they_were_served():
    served, hit = rows(), np.arange(60) % 3 == 0
    found = Drilled(served, [], seed=3, replicates=100).hit(hit)["calibration_ratio"]
    part = np.isin(served.request, np.flatnonzero(hit))
    assert found["value"] == pytest.approx(served.probability[part].sum() / served.target[part].sum())
    alone = metric_replicates("calibration_ratio", served.where(part), seed=3, replicates=100)
    assert found == estimate_record(alone)
    never = Drilled(served, [], seed=3, replicates=100).hit(hit & False)
    assert never["calibration_ratio"] == {"cannot": "no judged request lacked these features"}
