"""Features missing at serving, in a simulated world: complete rows, donor copies, and the rows as they were served.

Lists are shuffled, so two worlds that differ in their outages alone show the same items and see the same clicks: one
has the features as a warehouse fills them in, the other as they were served.
"""

import functools

import lightgbm as lgb
import numpy as np
import pytest

from sameworld.models.donor_copies import donor_copies
from sameworld.models.features import Feature, feature_matrix
from sameworld.models.training import Rows, fit_probability
from sameworld.models.training_table import TrainingTable, request_sizes
from sameworld.sources.closed_loop import World
from sameworld.sources.closed_loop_log import ITEM_SERVICE, USER_SERVICE
from sameworld.sources.closed_loop_parameters import WorldParameters

NAMES = sorted((*USER_SERVICE, *ITEM_SERVICE, "x_content"))
FEATURES = tuple(Feature(name, "number") for name in NAMES)
DAYS, SLOTS = 14, 6
SETTINGS = {"learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 50, "seed": 1, "num_threads": 1}


def logged(seed, **outages):
    """Return the matrix, clicks, and the day of every impression of a world whose lists are shuffled."""
    sizes = {"requests_per_day": 500, "users": 300, "items": 80, "candidates": SLOTS, "slots": SLOTS}
    flat = {"examination_exponent": 0.0, "epsilon": 1.0, "propensity_share": 0.0, "churn": 0.05}
    world = World(WorldParameters(seed=seed, days=DAYS, **sizes, **flat, **outages))
    days = [world.simulate_day(day) for day in range(DAYS)]
    matrix = np.concatenate([feature_matrix(day.impressions, FEATURES) for day in days])
    clicked = np.concatenate([clicks_of(day) for day in days])
    return matrix, clicked, np.repeat(np.arange(DAYS), len(clicked) // DAYS)


def clicks_of(day):
    keys = day.impressions.select("request_id", "item_id")
    came = day.outcomes.filter(kind="click").select("request_id", "item_id").with_columns(hit=1.0)
    return (
        keys.join(came, on=["request_id", "item_id"], how="left", maintain_order="left")["hit"].fill_null(0).to_numpy()
    )


@functools.cache
def both(seed=5):
    whole = logged(seed, outage_shared=0.0, outage_user=0.0, outage_item=0.0)
    served = logged(seed, outage_shared=0.15, outage_user=0.12, outage_item=0.08)
    assert (whole[1] == served[1]).all()
    return whole[0], served[0], whole[1], whole[2]


def fitted(matrix, clicked, sizes, weight=None):
    ones = np.ones(len(clicked))
    rows = Rows(matrix, clicked, clicked, ones, ones if weight is None else weight, sizes, ones.astype(np.int64))
    made = fit_probability(rows, stop=None, settings=SETTINGS, max_rounds=80, patience=5, categories=[])
    booster = lgb.Booster(model_str=made.text)
    return lambda rows: 1 / (1 + np.exp(-made.start - booster.predict(rows, raw_score=True)))


@functools.cache
def models():
    """Three models of days 3 to 8; the donors are the requests of days 9 and 10, whose clicks none of them sees."""
    whole, served, clicked, day = both()
    train, donors = (day >= 3) & (day < 9), (day >= 9) & (day < 11)
    known = train | donors
    request = np.repeat(np.arange(len(day) // SLOTS), SLOTS)[known] + 1
    zeros = np.zeros(int(known.sum()))
    table = TrainingTable(
        features=FEATURES, matrix=np.where(train[:, None], whole, served)[known], request=request,
        position=np.ones(len(zeros), np.int64), target=clicked[known], gain=zeros, completeness=zeros + 1,
        closed=zeros == 0, shown_at=np.full(len(zeros), "2026-03-01", "datetime64[us]"), served=donors[known],
        item=zeros.astype(np.int32), items=np.array(["i"]),
    )  # fmt: skip
    copies = donor_copies(table, NAMES, seed=1)
    chosen = copies.with_copies(train[known])
    behind, below = copies.rows(chosen), copies.below(table.matrix)[chosen]
    sizes, once = copies.sizes(table.request, chosen), request_sizes(table.request[train[known]])
    return {
        "complete": fitted(whole[train], clicked[train], once),
        "copies": fitted(below, clicked[known][behind], sizes, copies.shares(len(table))[chosen]),
        "replayed": fitted(served[train], clicked[train], once),
    }


def judged(name, matrix):
    """Return normalised entropy and calibration of a model on the last days, as a matrix has their features."""
    _, _, clicked, day = both()
    last = day >= 11
    p, y = np.clip(models()[name](matrix[last]), 1e-9, 1 - 1e-9), clicked[last]
    loss = -np.mean(np.where(y > 0, np.log(p), np.log1p(-p)))
    rate = y.mean()
    return loss / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)), p.sum() / y.sum()


def test_under_serving_nulls_donor_copies_are_worth_a_log_of_what_was_served():
    complete, copies, replayed = (judged(name, both()[1])[0] for name in ("complete", "copies", "replayed"))
    assert copies < complete - 0.05
    assert copies == pytest.approx(replayed, abs=0.01)


def test_with_every_feature_there_donor_copies_cost_nothing_to_speak_of():
    assert judged("copies", both()[0])[0] < judged("complete", both()[0])[0] + 0.005


@pytest.mark.parametrize("service", [ITEM_SERVICE, USER_SERVICE])
def test_in_a_full_outage_a_model_with_donor_copies_stays_calibrated(service):
    lacking = both()[1].copy()
    lacking[:, [NAMES.index(name) for name in service]] = np.nan
    assert judged("copies", lacking)[1] == pytest.approx(1.0, abs=0.08)
    assert judged("copies", lacking)[0] < judged("complete", lacking)[0]


def test_in_a_full_outage_of_item_statistics_complete_rows_alone_lose_the_calibration():
    lacking = both()[1].copy()
    lacking[:, [NAMES.index(name) for name in ITEM_SERVICE]] = np.nan
    assert abs(judged("complete", lacking)[1] - 1.0) > 0.15
