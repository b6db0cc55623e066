"""The real sample becomes a drop with nothing added and nothing lost."""

import re
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sources.drop_contract import problems, read

from sameworld.records import Refused
from sameworld.sources.open_bandit import uniform_policy_log, write_drop

SAMPLE = Path(__file__).parents[2] / "examples" / "open_bandit"
END = datetime(2019, 12, 1, tzinfo=UTC)
CAMPAIGNS = pytest.mark.parametrize("campaign", ["men", "all"])


def dropped(out: Path, campaign: str = "men") -> Path:
    write_drop(SAMPLE, out, campaign=campaign)
    return out


def table(drop: Path, name: str) -> pl.DataFrame:
    return pl.from_arrow(read(drop, name))


def logged(policy: str, campaign: str = "men") -> list[dict]:
    return pl.read_parquet(SAMPLE / f"{policy}_{campaign}.parquet").to_dicts()


def files(drop: Path) -> dict[str, bytes]:
    return {str(path.relative_to(drop)): path.read_bytes() for path in sorted(drop.rglob("*")) if path.is_file()}


@CAMPAIGNS
def test_every_column_and_arrival_is_as_the_contract_has_it(tmp_path, campaign):
    assert problems(dropped(tmp_path / "drop", campaign)) == []


def test_the_drop_has_the_seven_days_of_the_sample(tmp_path):
    days = write_drop(SAMPLE, tmp_path, campaign="men")
    assert days == [date(2019, 11, day) for day in range(24, 31)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"day={day}" for day in days]


@CAMPAIGNS
def test_every_logged_row_is_one_request_of_one_impression(tmp_path, campaign):
    drop = dropped(tmp_path / "drop", campaign)
    impressions = table(drop, "impressions")
    assert sorted(impressions["request_id"]) == sorted(
        f"{policy}-{n}" for policy in ("bts", "random") for n in range(10_000)
    )
    assert sorted(table(drop, "requests")["request_id"]) == sorted(impressions["request_id"])


@pytest.mark.parametrize("policy", ["bts", "random"])
def test_each_impression_says_what_its_row_says(tmp_path, policy):
    impressions = {
        row["request_id"]: row for row in table(dropped(tmp_path / "drop"), "impressions").iter_rows(named=True)
    }
    for row in logged(policy)[::37]:
        seen = impressions[f"{policy}-{row['row']}"]
        assert (seen["item_id"], seen["position"], seen["shown_at"]) == (
            str(row["item_id"]),
            row["position"],
            row["timestamp"],
        )
        assert (seen["propensity"], seen["arrived_at"]) == (row["propensity_score"], row["timestamp"])
        assert seen["x_affinity"] == row[f"user-item_affinity_{row['item_id']}"]
        assert [seen[f"x_user_feature_{n}"] for n in range(4)] == [row[f"user_feature_{n}"] for n in range(4)]


def test_the_item_shown_brings_its_own_features(tmp_path):
    items = pl.read_parquet(SAMPLE / "items_men.parquet").with_columns(pl.col("item_id").cast(pl.String))
    shown = table(dropped(tmp_path / "drop"), "impressions").join(items, on="item_id", validate="m:1")
    assert shown.height == 20_000
    assert all(shown[f"x_item_feature_{n}"].equals(shown[f"item_feature_{n}"], check_names=False) for n in range(4))


@CAMPAIGNS
def test_a_click_lands_when_it_happens_which_is_when_the_item_was_shown(tmp_path, campaign):
    outcomes = table(dropped(tmp_path / "drop", campaign), "outcomes")
    clicks = {
        f"{policy}-{row['row']}": row
        for policy in ("bts", "random")
        for row in logged(policy, campaign)
        if row["click"]
    }
    assert set(outcomes["request_id"]) == set(clicks)
    assert len(outcomes) == len(clicks)
    assert outcomes["happened_at"].to_list() == [clicks[name]["timestamp"] for name in outcomes["request_id"]]
    assert outcomes["happened_at"].equals(outcomes["arrived_at"], check_names=False)


def test_the_uniform_log_is_the_shuffle_branch_and_nobody_is_named(tmp_path):
    requests = table(dropped(tmp_path / "drop"), "requests")
    assert set(requests.select("policy_id", "branch").rows()) == {("bts", "model"), ("random", "shuffle")}
    assert requests["user_id"].null_count() == requests.height


def test_nothing_is_null_but_the_user(tmp_path):
    impressions = table(dropped(tmp_path / "drop"), "impressions").drop("user_id")
    assert impressions.null_count().row(0) == (0,) * impressions.width


def test_the_sample_twice_gives_the_same_bytes(tmp_path):
    assert files(dropped(tmp_path / "a")) == files(dropped(tmp_path / "b"))


@pytest.mark.parametrize(("campaign", "value", "size"), [("men", 0.0030, 656), ("all", 0.0024, 340)])
def test_the_uniform_policys_value_comes_out_as_published_with_the_sample(campaign, value, size):
    log = uniform_policy_log(SAMPLE, campaign, END)
    weight = 1 / log.n_items / log.propensity
    assert np.mean(weight * log.click) == pytest.approx(value, abs=5e-5)
    assert weight.sum() ** 2 / (weight**2).sum() == pytest.approx(size, abs=1)


def test_rows_at_the_cutoff_or_later_are_not_read():
    cut = datetime(2019, 11, 26, tzinfo=UTC)
    log = uniform_policy_log(SAMPLE, "men", cut)
    assert len(log.propensity) == len(log.click) == sum(row["timestamp"] < cut for row in logged("bts"))
    assert log.random_click.sum() == sum(row["click"] for row in logged("random") if row["timestamp"] < cut)


def test_a_row_shown_at_the_cutoff_itself_is_left_out():
    first = logged("bts")[0]["timestamp"]
    assert len(uniform_policy_log(SAMPLE, "men", first).click) == 0


def test_a_naive_cutoff_is_refused():
    with pytest.raises(
        Refused, match=re.escape("a naive cutoff: got 2019-11-26T00:00:00; wanted a time with its zone")
    ):
        uniform_policy_log(SAMPLE, "men", datetime(2019, 11, 26))


def test_an_unknown_campaign_is_refused_with_the_files_there_are(tmp_path):
    with pytest.raises(Refused, match=re.escape("got bts_all.parquet, bts_men.parquet, items_all.parquet")):
        write_drop(SAMPLE, tmp_path, campaign="women")


def test_a_missing_column_is_refused_by_name(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "sample")
    path = tmp_path / "sample/bts_men.parquet"
    pl.read_parquet(path).rename({"propensity_score": "pscore"}).write_parquet(path)
    with pytest.raises(
        Refused, match=re.escape("bts_men.parquet lacks a column") + ".*" + re.escape("wanted propensity_score")
    ):
        write_drop(tmp_path / "sample", tmp_path / "drop", campaign="men")


def test_an_item_that_nobody_knows_is_refused(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "sample")
    path = tmp_path / "sample/items_men.parquet"
    pl.read_parquet(path).filter(pl.col("item_id") != 14).write_parquet(path)
    with pytest.raises(Refused, match=re.escape("bts_men shows an item that items_men lacks: got item 14")):
        write_drop(tmp_path / "sample", tmp_path / "drop", campaign="men")
