"""What a bundle knows of items by id: added to whatever is scored, unknown items average, kept byte for byte."""

from dataclasses import replace

import numpy as np
import polars as pl
from models import tiny

from sameworld.maths.delay import fit_delay_curve
from sameworld.models.bundle import load_bundle
from sameworld.models.features import Feature
from sameworld.models.item_history import ItemHistory, completeness_by_day, history_features
from sameworld.models.rank import rank
from sameworld.models.training import fit_gain
from sameworld.store.artifacts import Store

KNOWN = ItemHistory(np.array(["a", "c"]), ("click", "sale"), np.array([[0.5, -0.5], [1.0, 2.0]]), np.zeros(2))


def ids(*names):
    return pl.DataFrame({"item_id": names})


def test_a_known_item_gets_its_statistics_and_an_unknown_one_counts_as_average():
    found = KNOWN.added_to(ids("c", "b", "a", "zz"))
    assert found["history of click"].to_list() == [-0.5, 0.0, 0.5, 0.0]
    assert found["history of sale"].to_list() == [2.0, 0.0, 1.0, 0.0]


def test_a_history_of_nothing_adds_nothing_and_one_of_no_items_adds_the_average():
    assert tiny.HISTORY.added_to(ids("a")).columns == ["item_id"]
    empty = ItemHistory(np.zeros(0, np.str_), ("click",), np.zeros((1, 0)), np.zeros(0))
    assert empty.added_to(ids("a", "b"))["history of click"].to_list() == [0.0, 0.0]


def test_ids_of_any_text_type_find_their_item():
    for dtype in (pl.Categorical, pl.Enum(["a", "b", "c"])):
        found = KNOWN.added_to(ids("c", "b").with_columns(pl.col("item_id").cast(dtype)))
        assert found["history of click"].to_list() == [-0.5, 0.0]


def test_completeness_is_read_at_the_midnights_after_the_middle_of_the_day_shown():
    arrival = np.random.default_rng(7).exponential(24.0, 500)
    curve = fit_delay_curve(np.full(500, 200.0), arrival, horizon_hours=100.0)
    found = completeness_by_day({"all": curve.as_record()}, ["x", "y"])
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found[0, :3], curve.at(np.array([12.0, 36.0, 60.0])))
    np.testing.assert_array_equal(completeness_by_day({}, ["x"]), [[1.0]])


def test_rank_reads_the_history_by_item_whatever_the_rows_say():
    rows = tiny.rows()
    chance = np.random.default_rng(5).normal(size=len(rows.target)).astype(np.float32)
    liked = (np.random.default_rng(6).random(len(chance)) < tiny.logistic(3.0 * chance)).astype(float)
    learned = replace(rows, matrix=np.column_stack([rows.matrix, chance]), target=liked, gain=liked)
    fitted = fit_gain(learned, **tiny.FIT)
    bundle = tiny.bundle()
    history = ItemHistory(np.array(["i00", "i05"]), ("click",), np.array([[-2.0, 2.0]]), np.zeros(2))
    booster = tiny.lgb.Booster(model_str=fitted.text)
    features = (*bundle.features, *history_features(["click"]))
    new = replace(bundle, ranker=booster, probability=booster, features=features, history=history)
    ranked = rank(tiny.candidates(), new)
    assert ranked.filter(item_id="i05")["position"].unique().to_list() == [1]
    assert ranked.filter(item_id="i00")["position"].unique().to_list() == [6]


def test_a_written_history_is_loaded_as_it_was(tmp_path):
    store = Store(str(tmp_path / "root"))
    loaded = load_bundle(store.open(tiny.publish(store, tiny.write(tmp_path / "b")).uri))
    assert loaded.history.kinds == ()
    assert loaded.history.ids.tolist() == tiny.ITEMS.ids.tolist()


def test_the_gain_model_recovers_the_expected_gain_where_positions_hide_it():
    theta = np.array([1.0, 0.5, 0.3, 0.2])
    rows = tiny.rows(requests=6000, size=4, theta=theta)
    fitted = fit_gain(rows, **{**tiny.FIT, "max_rounds": 80})
    raw = fitted.start + tiny.lgb.Booster(model_str=fitted.text).predict(rows.matrix, raw_score=True)
    expected = 5.0 * tiny.logistic(raw)
    true = tiny.truth(*rows.matrix.T) * (0.7 * 1.0 + 0.3 * 5.0)
    assert abs(expected.mean() / true.mean() - 1.0) < 0.05
    assert np.corrcoef(expected, true)[0, 1] > 0.97


def test_history_features_are_numbers_in_the_order_of_the_kinds():
    assert history_features(["a", "b"]) == (Feature("history of a", "number"), Feature("history of b", "number"))


def test_a_residual_moves_its_item_and_no_other():
    whole = replace(tiny.bundle(), history=replace(tiny.HISTORY, residual=np.array([0.0, 50.0, 0.0])))
    before, after = rank(tiny.candidates(), tiny.bundle()), rank(tiny.candidates(), whole)
    moved = after["score"].to_numpy() - before["score"].to_numpy()
    np.testing.assert_allclose(moved, np.where(before["item_id"] == "i01", 50.0, 0.0))
    assert after.filter(item_id="i01")["position"].unique().to_list() == [1]
