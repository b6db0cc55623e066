"""The matrix against a slow reading of each cell, and what is refused."""

import math
import re

import numpy as np
import polars as pl
import pytest

from sameworld.models import features
from sameworld.models.features import Feature, chosen, feature_matrix, kind_of, learn_features
from sameworld.records import Refused

ALL = (
    Feature("x_bool", "bool"),
    Feature("x_city", "category", ("Lyon", "Oslo", "'; DROP")),
    Feature("x_count", "number"),
    Feature("x_gone", "number"),
    Feature("x_score", "number"),
)


def frame(n=400, seed=0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({
        "x_score": rng.choice([0.5, -1.25, math.nan, math.inf, -math.inf, None], n).tolist(),
        "x_city": rng.choice(["Lyon", "Oslo", "'; DROP", "Atlantis", "", None], n).tolist(),
        "x_count": pl.Series(rng.choice([0, 7, -3, None], n).tolist(), dtype=pl.Int32),
        "x_bool": rng.choice([True, False, None], n).tolist(),
        "x_not_asked_for": np.arange(n),
    }, strict=False)  # fmt: skip


def cell(feature, value) -> float:
    """Read one cell as the docstring says, without a table engine."""
    if value is None or (feature.kind == "category" and value not in feature.levels):
        return math.nan
    if feature.kind == "category":
        return float(feature.levels.index(value))
    return float(value) if math.isfinite(value) else math.nan


def test_the_matrix_equals_a_cell_by_cell_reading():
    table = frame()
    slow = [[cell(feature, row.get(feature.name)) for feature in ALL] for row in table.to_dicts()]
    np.testing.assert_array_equal(feature_matrix(table, ALL), np.array(slow, dtype=np.float32))


@pytest.mark.parametrize("code", [pl.String, pl.Categorical])
def test_few_rows_read_as_many_do(monkeypatch, code):
    odd = {"x_gone": [1e300, None, 2.0**53 + 2] * 200, "x_count": [2**62 + 1, None, -7] * 200}
    table = frame(600).with_columns(
        pl.col("x_city").cast(code), **{name: pl.Series(each) for name, each in odd.items()}
    )
    few = feature_matrix(table, ALL)
    monkeypatch.setattr(features, "FEW_ROWS", 10)
    np.testing.assert_array_equal(feature_matrix(table, ALL), few)
    assert np.isnan(few).any()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_features_that_the_frame_lacks_are_missing_in_every_row(count):
    matrix = feature_matrix(pl.DataFrame({"request_id": ["r"] * count}), ALL)
    assert matrix.shape == (count, len(ALL))
    assert np.isnan(matrix).all()


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["Oslo", "Lyon", "Rome"])])
def test_text_of_any_encoding_is_one_category(dtype):
    column = pl.DataFrame({"x_city": pl.Series(["Oslo", "Rome", None, "Lyon"], dtype=dtype)})
    assert kind_of(column.schema["x_city"]) == "category"
    np.testing.assert_array_equal(feature_matrix(column, ALL[1:2])[:, 0], np.float32([1, np.nan, np.nan, 0]))


def test_a_category_that_was_never_seen_in_training_is_missing_everywhere():
    assert np.isnan(feature_matrix(frame(), (Feature("x_city", "category"),))).all()


def test_codes_are_one_category_whether_they_come_as_integers_or_beside_nulls_as_floats():
    whole = pl.DataFrame({"x_code": [3, 10, 3]})
    [learned] = learn_features(whole.lazy(), {"x_code": "category"})
    assert learned.levels == ("10", "3")
    served = pl.DataFrame({"x_code": [3.0, None, 10.0, 3.5, math.nan]})
    np.testing.assert_array_equal(feature_matrix(served, [learned])[:, 0], np.float32([1, np.nan, 0, np.nan, np.nan]))
    assert learn_features(served.lazy().limit(3), {"x_code": "category"}) == (learned,)


def test_a_number_beyond_32_bits_is_missing():
    assert np.isnan(feature_matrix(pl.DataFrame({"x_score": [1e300]}), ALL[4:])).all()


def test_a_column_of_nulls_is_missing_whatever_its_type():
    nulls = pl.DataFrame({"x_city": pl.Series([None, None], dtype=pl.Float64), "x_score": [None, None]})
    assert np.isnan(feature_matrix(nulls, ALL)).all()


@pytest.mark.parametrize(
    ("column", "feature", "wanted"),
    [
        (["1", "2"], ALL[4], "got String; wanted a number"),
        (["true", "no"], ALL[0], "got String; wanted a bool"),
        ([[1], [2]], ALL[4], "got List(Int64); wanted a number"),
        ([["Oslo"], ["Lyon"]], ALL[1], "got List(String); wanted a category"),
    ],
)
def test_a_column_of_another_type_than_promised_is_refused(column, feature, wanted):
    with pytest.raises(Refused, match=re.escape(f"feature {feature.name!r} cannot be read: {wanted}")):
        feature_matrix(pl.DataFrame({feature.name: column}), (feature,))


def test_a_model_without_features_is_refused():
    with pytest.raises(Refused, match=re.escape("the model has no features")):
        feature_matrix(frame(), ())


def test_a_type_that_no_model_reads_is_refused():
    with pytest.raises(Refused, match=re.escape("got Date; wanted a number, a bool or a string")):
        kind_of(pl.Date())


def test_learned_levels_are_sorted_and_capped_at_the_most_frequent(monkeypatch):
    monkeypatch.setattr(features, "MAX_LEVELS", 2)
    table = pl.DataFrame({"x_c": ["b", "a", "c", "c", "a", "d", None], "x_n": [1] * 7})
    learned = learn_features(table.lazy(), {"x_n": "number", "x_c": "category"})
    assert learned == (Feature("x_c", "category", ("a", "c")), Feature("x_n", "number"))


def test_levels_tied_in_frequency_do_not_depend_on_the_order_of_the_rows(monkeypatch):
    monkeypatch.setattr(features, "MAX_LEVELS", 2)
    learned = {learn_features(pl.LazyFrame({"x": list(text)}), {"x": "category"})[0] for text in ("abc", "cba", "bca")}
    assert learned == {Feature("x", "category", ("a", "b"))}


def test_a_feature_survives_its_record():
    assert [Feature.from_record(feature.as_record()) for feature in ALL] == list(ALL)


def test_patterns_choose_and_exclusion_wins():
    names = ["x_b", "x_a", "y", "x_ab"]
    assert chosen(names, include=["x_*", "y"], exclude=["x_a*"]) == ["x_b", "y"]
