"""The real sample as a drop: logged impressions of the Open Bandit Dataset, each row one request of one impression.

Two policies showed fashion items on a shop's page, one of them uniformly at random (Saito et al., "Open Bandit Dataset
and Pipeline", NeurIPS 2021 Datasets and Benchmarks). The sample has no user, no list and no delay, and none is
invented: users are null, each impression is a request of its own, and a click arrives when it happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.records import Refused
from sameworld.sources.landing import land, want_empty

POLICIES = {"bts": "model", "random": "shuffle"}  # Bernoulli Thompson sampling, and uniform random: the branch of each
USER_FEATURES = tuple(f"user_feature_{number}" for number in range(4))
ITEM_FEATURES = tuple(f"item_feature_{number}" for number in range(4))


@dataclass(frozen=True)
class UniformPolicyLog:
    """What a check of the uniform policy's value needs: one entry a logged row, before the cutoff.

    propensity, click (n,) of the bts log; n_items, so that uniform random shows an item with probability 1 / n_items;
    random_click (m,) of the log of the uniform policy itself
    """

    propensity: NDArray[np.float64]
    click: NDArray[np.float64]
    n_items: int
    random_click: NDArray[np.float64]


def write_drop(folder: Path, out: Path, *, campaign: str) -> list[date]:
    """Write a campaign's two logs as one drop, and return its days, oldest first.

    folder : holds ``{random,bts}_<campaign>.parquet`` and ``items_<campaign>.parquet``
    Requests are named by their log and row, as in ``bts-17``; ``policy_id`` is random or bts; propensities are as
    logged; ``x_affinity`` is the row's affinity to the item shown; hashed categories stay strings.

    Raises Refused if a file is missing, lacks a column or names an unknown item, and if ``out`` is not empty.
    """
    rows = pl.concat([_rows(folder, policy, campaign) for policy in POLICIES]).sort("shown_at", "request_id")
    want_empty(out)
    days = rows["shown_at"].dt.date().unique().sort().to_list()
    for day in days:
        land(_tables(rows.filter(pl.col("shown_at").dt.date() == day)), out, day)
    return list(days)


def uniform_policy_log(folder: Path, campaign: str, until: datetime) -> UniformPolicyLog:
    """Read what is needed to estimate the uniform policy's click rate from the bts log, and to check the estimate.

    until : aware; rows at or after it are left out

    Raises Refused as :func:`write_drop` does, and for a naive ``until``.
    """
    if until.tzinfo is None:
        raise Refused(
            what="a naive cutoff", got=until.isoformat(), wanted="a time with its zone", remedy="give it in UTC"
        )
    bts, random = (_log(folder, policy, campaign).filter(pl.col("timestamp") < until) for policy in ("bts", "random"))
    return UniformPolicyLog(
        propensity=bts["propensity_score"].to_numpy(),
        click=bts["click"].cast(pl.Float64).to_numpy(),
        n_items=_items(folder, campaign).height,
        random_click=random["click"].cast(pl.Float64).to_numpy(),
    )


def _rows(folder: Path, policy: str, campaign: str) -> pl.DataFrame:
    """Return a log's rows, named as the contract names them."""
    log, items = _log(folder, policy, campaign), _items(folder, campaign)
    unknown = log.join(items, on="item_id", how="anti")
    if unknown.height:
        raise Refused(what=f"{policy}_{campaign} shows an item that items_{campaign} lacks",
                      got=f"item {unknown['item_id'][0]} in {unknown.height} rows", wanted="known items",
                      remedy="take both files from the same release")  # fmt: skip
    return log.join(items, on="item_id", how="left", maintain_order="left").select(
        pl.format("{}-{}", pl.lit(policy), "row").alias("request_id"),
        pl.col("item_id").cast(pl.String),
        pl.lit(campaign).alias("surface"),
        pl.lit(policy).alias("policy_id"),
        pl.lit(POLICIES[policy]).alias("branch"),
        pl.col("timestamp").alias("shown_at"),
        pl.col("position").cast(pl.Int32),
        pl.col("click"),
        pl.col("propensity_score").alias("propensity"),
        pl.Series("x_affinity", _shown_affinity(log, items.height)),
        *(pl.col(name).alias(f"x_{name}") for name in (*USER_FEATURES, *ITEM_FEATURES)),
    )


def _shown_affinity(log: pl.DataFrame, n_items: int) -> NDArray[np.float64]:
    """Return each row's affinity to the item that it shows: the column of the item's number."""
    affinities = log.select(f"user-item_affinity_{number}" for number in range(n_items)).to_numpy()
    return np.asarray(affinities[np.arange(log.height), log["item_id"].to_numpy()], dtype=np.float64)


def _tables(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    nobody, arrived = pl.lit(None, dtype=pl.String).alias("user_id"), pl.col("shown_at").alias("arrived_at")
    requests = rows.select("request_id", nobody, "surface", "policy_id", "branch", "shown_at", arrived)
    impressions = rows.select(
        "request_id", "item_id", nobody, "position", "shown_at", arrived, "propensity", pl.col("^x_.*$")
    )
    outcomes = rows.filter(pl.col("click") == 1).select(
        "request_id", "item_id", pl.lit("click").alias("kind"), pl.col("shown_at").alias("happened_at"), arrived
    )
    return {"requests": requests, "impressions": impressions, "outcomes": outcomes}


def _log(folder: Path, policy: str, campaign: str) -> pl.DataFrame:
    return _read(folder / f"{policy}_{campaign}.parquet", "row", "timestamp", "item_id", "position", "click",
                 "propensity_score", *USER_FEATURES)  # fmt: skip


def _items(folder: Path, campaign: str) -> pl.DataFrame:
    return _read(folder / f"items_{campaign}.parquet", "item_id", *ITEM_FEATURES)


def _read(path: Path, *columns: str) -> pl.DataFrame:
    if not path.is_file():
        held = ", ".join(sorted(found.name for found in path.parent.glob("*.parquet"))) or "no Parquet file"
        raise Refused(what="a file of the Open Bandit sample is missing", got=held, wanted=str(path),
                      remedy="check the folder and the campaign, as in campaign = 'men'")  # fmt: skip
    frame = pl.read_parquet(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise Refused(what=f"{path.name} lacks a column", got=", ".join(frame.columns[:12]), wanted=", ".join(missing),
                      remedy="use the files as the data set's publisher names them")  # fmt: skip
    return frame
