"""The three shops are what they say: in shape, in type, in time, and in what can be learned from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from worlds.drop_files import START_US, Bools, Floats
from worlds.shops import Shop, marketplace, news_feed, search

BUILDERS: dict[str, Callable[..., Shop]] = {"news_feed": news_feed, "marketplace": marketplace, "search": search}
NAMES = sorted(BUILDERS)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shop]:
    return {name: build(tmp_path_factory.mktemp(name) / "drop", seed=3) for name, build in BUILDERS.items()}


def rows_of(shop: Shop, table: str) -> pa.Table:
    files = sorted(shop.drop.glob(f"day=*/{table}/*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def frame_of(shop: Shop, table: str) -> pl.DataFrame:
    frame = pl.from_arrow(rows_of(shop, table))
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def bytes_of(shop: Shop) -> dict[str, bytes]:
    return {str(path.relative_to(shop.drop)): path.read_bytes() for path in shop.drop.rglob("*") if path.is_file()}


def features_of(shop: Shop, shown: pl.DataFrame) -> csr_matrix:
    """Return numbers as their signed log, everything else one-hot, scaled."""
    numbers = cs.numeric() - cs.by_name("x_category_code", require_all=False)
    row = shown.select(list(shop.features)).fill_nan(None).with_columns(numbers.sign() * numbers.abs().log1p())
    row = row.with_columns((~numbers).cast(pl.String).fill_null("none"), numbers.fill_null(0.0))
    return StandardScaler(with_mean=False).fit_transform(DictVectorizer().fit_transform(row.to_dicts()))


def learned(shop: Shop) -> tuple[Floats, Floats, Bools]:
    """Return a logistic model's scores, the items' past rates and the outcomes of the second half's impressions."""
    shown = frame_of(shop, "impressions").sort("shown_at")
    hits = frame_of(shop, "outcomes").filter(pl.col("kind") == shop.kinds[0]).select("request_id", "item_id").unique()
    shown = shown.join(hits.with_columns(hit=True), on=["request_id", "item_id"], how="left", maintain_order="left")
    shown = shown.with_columns(pl.col("hit").fill_null(False))
    x, hit, half = features_of(shop, shown), shown["hit"].to_numpy(), len(shown) // 2
    scores = LogisticRegression(C=0.01).fit(x[:half], hit[:half]).decision_function(x[half:])
    past = shown[:half].group_by("item_id").agg(rate=(pl.col("hit").sum() + 1) / (pl.len() + 5))
    popular = shown[half:].join(past, on="item_id", how="left", maintain_order="left")["rate"].fill_null(0.2)
    return scores, popular.to_numpy(), hit[half:]


@pytest.mark.parametrize("name", NAMES)
def test_the_record_counts_the_rows_that_are_written(shops: dict[str, Shop], name: str) -> None:
    shop = shops[name]
    assert {table: len(rows_of(shop, table)) for table in shop.rows} == shop.rows
    assert len(shop.days) == 12
    assert all((shop.drop / f"day={day}" / "_SUCCESS").exists() for day in shop.days)
    assert int(shop.landed.sum()) == shop.rows["impressions"]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_lies_in_the_folder_of_the_day_it_arrived(shops: dict[str, Shop], name: str) -> None:
    for file in sorted(shops[name].drop.rglob("*.parquet")):
        rows = pq.ParquetFile(file).read()
        clock = rows["arrived_at" if "arrived_at" in rows.column_names else "available_at"]
        days = {str(at)[:10] for at in clock.cast(pa.timestamp("us")).to_pylist()}
        assert {f"day={day}" for day in days} == {file.relative_to(shops[name].drop).parts[0]}


@pytest.mark.parametrize("name", NAMES)
def test_positions_are_gapless_and_keys_are_unique(shops: dict[str, Shop], name: str) -> None:
    shop, truth = shops[name], shops[name].truth
    assert len(set(zip(truth.request_id.tolist(), truth.item_id.tolist(), strict=True))) == len(truth.request_id)
    assert (truth.position.reshape(-1, shop.slots) == np.arange(1, shop.slots + 1)).all()
    outcomes = frame_of(shop, "outcomes").with_columns(pl.col("retracted").fill_null(False))
    assert not outcomes.select("request_id", "item_id", "kind", "happened_at", "retracted").is_duplicated().any()
    assert set(outcomes["kind"]) == set(shop.kinds)


@pytest.mark.parametrize("name", NAMES)
def test_types_are_the_contracts(shops: dict[str, Shop], name: str) -> None:
    schema = rows_of(shops[name], "impressions").schema
    instant = pa.timestamp("us", tz="UTC")
    assert (schema.field("position").type, schema.field("propensity").type) == (pa.int32(), pa.float64())
    assert schema.field("shown_at").type == schema.field("arrived_at").type == instant
    assert {column for column in schema.names if column.startswith("x_")} == set(shops[name].features)
    for column, kind in shops[name].features.items():
        got = schema.field(column).type
        assert got.value_type == kind.value_type if pa.types.is_dictionary(kind) else got == kind


def test_the_news_feed_writes_dictionaries_large_strings_nan_and_null(shops: dict[str, Shop]) -> None:
    rows = rows_of(shops["news_feed"], "impressions")
    assert pa.types.is_dictionary(rows.schema.field("x_topic").type)
    assert rows.schema.field("request_id").type == rows.schema.field("item_id").type == pa.large_string()
    recency = rows["x_recency_hours"]
    assert recency.null_count > 0
    assert np.isnan(recency.drop_null().to_numpy()).any()
    assert len(list((shops["news_feed"].drop / "day=2026-03-02" / "impressions").glob("*.parquet"))) == 3
    reasons = [dict(reason) for reason in rows["null_reason"].to_pylist()]
    assert [bool(reason) for reason in reasons] == rows["x_author_score"].is_null().to_pylist()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path, name: str) -> None:
    build = BUILDERS[name]
    first, again, other = (build(tmp_path / str(i), seed, 3, 20) for i, seed in enumerate((5, 5, 6)))
    assert bytes_of(first) == bytes_of(again)
    assert bytes_of(first) != bytes_of(other)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_features_beats_chance_and_popularity(shops: dict[str, Shop], name: str) -> None:
    scores, popular, hit = learned(shops[name])
    auc = roc_auc_score(hit, scores)
    assert auc > 0.6
    assert auc > roc_auc_score(hit, popular) + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_outcomes_follow_relevance_times_examination(shops: dict[str, Shop], name: str) -> None:
    truth = shops[name].truth
    assert truth.examination[0] == 1
    assert (np.diff(truth.examination) < 0).all()
    for kind, relevance in truth.relevance.items():
        expected = relevance * truth.examination[truth.position - 1]
        for position in range(1, shops[name].slots + 1):
            here = truth.position == position
            surprise = np.isfinite(truth.delay_hours[kind])[here].sum() - expected[here].sum()
            assert abs(surprise) < 4.5 * np.sqrt((expected * (1 - expected))[here].sum())


@pytest.mark.parametrize("name", NAMES)
def test_items_differ_in_popularity_and_hours_in_traffic(shops: dict[str, Shop], name: str) -> None:
    truth = shops[name].truth
    counts = np.sort(np.unique(truth.item_id, return_counts=True)[1])[::-1]
    assert counts[: len(counts) // 10].sum() > 0.25 * counts.sum()
    hour = (truth.shown_at - START_US) // 3_600_000_000 % 24
    assert np.isin(hour, (18, 19, 20, 21)).sum() > 2 * np.isin(hour, (6, 7, 8, 9)).sum()


def test_the_news_feeds_candidates_tau_and_epsilon_explain_its_first_positions(shops: dict[str, Shop]) -> None:
    requests = frame_of(shops["news_feed"], "requests")
    tops = frame_of(shops["news_feed"], "impressions").filter(pl.col("position") == 1)
    top = requests.join(tops.select("request_id", top="item_id"), on="request_id")
    scored = top.explode("candidates").unnest("candidates")
    weight = (pl.col("score") / pl.col("tau")).exp()
    share = (1 - pl.col("epsilon")) * weight / weight.sum().over("request_id") + pl.col("epsilon") / 15
    inverse = 1 / scored.with_columns(share=share).filter(pl.col("item_id") == pl.col("top"))["share"].to_numpy()
    assert len(inverse) == len(top)  # a shown item is a candidate
    assert abs(inverse.mean() - 15) < 4.5 * inverse.std() / np.sqrt(len(inverse))  # E[1/p] = number of candidates
    assert abs(float((top["branch"] == "shuffle").sum()) / len(top) - 0.08) < 0.02


def test_the_news_feeds_served_author_score_is_the_batch_that_was_readable(shops: dict[str, Shop]) -> None:
    shown = frame_of(shops["news_feed"], "impressions").sort("shown_at")
    stats = frame_of(shops["news_feed"], "features/author_stats").sort("available_at")
    joined = shown.join_asof(
        stats, left_on="shown_at", right_on="available_at", by="item_id", check_sortedness=False
    ).drop_nulls(["x_author_score", "author_score"])
    assert len(joined) > 10_000
    assert (joined["x_author_score"] == joined["author_score"]).all()


def test_the_marketplaces_propensities_are_exact(shops: dict[str, Shop]) -> None:
    shop = shops["marketplace"]
    assert frame_of(shop, "impressions")["propensity"].null_count() == 0
    inverse = 1 / shop.truth.propensity.reshape(-1, shop.slots)
    error = inverse.std(axis=0) / np.sqrt(len(inverse))
    assert (np.abs(inverse.mean(axis=0) - 20) < 4.5 * error).all()  # E[1/p] = number of candidates
    assert "requests" not in shop.rows


def test_the_marketplaces_purchases_take_hours_to_days_by_surface(shops: dict[str, Shop]) -> None:
    outcomes, shop = frame_of(shops["marketplace"], "outcomes"), shops["marketplace"]
    first = outcomes.filter(~pl.col("retracted").fill_null(False))
    hours = (first["arrived_at"] - first["happened_at"]).dt.total_microseconds().to_numpy() / 3.6e9
    assert 46 < hours.max() <= 48.01
    truth = pl.DataFrame({"request_id": shop.truth.request_id, "item_id": shop.truth.item_id})
    truth = truth.with_columns(hours=shop.truth.delay_hours["purchase"])
    bought = truth.join(frame_of(shop, "impressions"), on=["request_id", "item_id"]).filter(pl.col("hours").is_finite())
    for surface, mean in (("app", 5), ("mail", 60), ("web", 24)):
        assert bought.filter(pl.col("x_surface") == surface)["hours"].mean() == pytest.approx(mean, rel=0.15)


def test_the_search_order_is_deterministic_and_its_policy_unknown(shops: dict[str, Shop]) -> None:
    requests, shown = rows_of(shops["search"], "requests"), frame_of(shops["search"], "impressions")
    assert "candidates" not in requests.column_names
    assert all(requests[column].null_count == len(requests) for column in ("tau", "epsilon", "policy_id"))
    assert requests["user_id"].null_count > 0
    assert shown["x_destination"].n_unique() == 201  # with null
    pair = shown.join(shown, on="request_id").filter(pl.col("position") < pl.col("position_right"))
    above = set(pair.select("item_id", "item_id_right").iter_rows())
    assert not any((low, high) in above for high, low in above)
