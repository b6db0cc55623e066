"""Plants retries and a robot in a closed-loop world's drop: what a real log has and nobody put there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.sources.closed_loop_drop import ORDERS
from sameworld.sources.landing import land

BOT = "robot"
MOVED = ("requests", "impressions", "candidates", "outcomes")
TIMES = ("shown_at", "happened_at", "arrived_at")
LATEST = timedelta(hours=23, minutes=50)  # what is shown, or arrives, after this could have a copy after midnight


@dataclass(frozen=True)
class Planted:
    """What was planted: the requests of each cluster, the original first, and the robot's requests."""

    clusters: tuple[tuple[str, ...], ...]
    bot: tuple[str, ...]


def plant_repeats(drop: Path, out: Path, *, seed: int, retried: float, bot_share: float) -> Planted:
    """Write a drop anew with pages loaded again and a robot.

    retried : share of the requests that are shown one to three times more, some seconds apart; all outcomes of such a
        request then go to one of the copies at random
    bot_share : share of all requests that one user makes of whom nothing ever comes, each a copy of someone's
    """
    rng = np.random.default_rng(seed)
    shown = _requests(drop)
    early = [pl.col(name) - pl.col(name).dt.truncate("1d") < LATEST for name in ("shown_at", "arrived_at")]
    ids = shown.filter(early)["request_id"].to_numpy()
    chosen = rng.permutation(ids)[: round(retried * len(ids))]
    copies = rng.integers(1, 4, len(chosen))
    of, number = np.repeat(chosen, copies), np.concatenate([np.arange(1, n + 1) for n in copies])
    again = _renamed(of, [f"{one}-again{n}" for one, n in zip(of, number, strict=True)], 20 * number, user=None)
    robots = rng.permutation(ids)[: round(bot_share / (1.0 - bot_share) * (len(shown) + len(of)))]
    made = _renamed(robots, [f"robot{n:06}" for n in range(len(robots))], rng.integers(0, 500, len(robots)), user=BOT)
    lucky = rng.integers(0, copies + 1)
    wins = {one: f"{one}-again{n}" if n else one for one, n in zip(chosen, lucky, strict=True)}
    _write(drop, out, pl.concat([again, made]), wins)
    groups = [(one, *(f"{one}-again{n}" for n in range(1, k + 1))) for one, k in zip(chosen, copies, strict=True)]
    return Planted(tuple(groups), tuple(made["new"]))


def _requests(drop: Path) -> pl.DataFrame:
    files = sorted(drop.glob("day=*/impressions/*.parquet"))
    rows = pl.concat([pl.read_parquet(file, columns=["request_id", "shown_at", "arrived_at"]) for file in files])
    return rows.unique("request_id", keep="first", maintain_order=True).sort("request_id")


def _renamed(of: NDArray[Any], new: list[str], seconds: NDArray[Any], *, user: str | None) -> pl.DataFrame:
    later = pl.Series(seconds.astype(np.int64) * 1_000_000).cast(pl.Duration("us"))
    columns = {"request_id": pl.Series(of, dtype=pl.String), "new": pl.Series(new, dtype=pl.String)}
    return pl.DataFrame({**columns, "later": later, "new_user": pl.repeat(user, len(of), dtype=pl.String, eager=True)})


def _write(drop: Path, out: Path, copies: pl.DataFrame, wins: dict[str, str]) -> None:
    """Write every table's rows and their copies on the day of their arrival; what arrives after the last is lost."""
    days = sorted(path for path in drop.glob("day=*"))
    tables = {}
    for name in (name for name in ORDERS if list(drop.glob(f"day=*/{name}/*.parquet"))):
        whole = pl.concat([pl.read_parquet(file) for file in sorted(drop.glob(f"day=*/{name}/*.parquet"))])
        tables[name] = _moved(name, whole, copies, wins) if name in MOVED else whole
    for path in days:
        day = pl.lit(path.name.removeprefix("day=")).str.to_date()
        frames = {n: t.filter(pl.col(ORDERS[n][0]).dt.date() == day).sort(ORDERS[n]) for n, t in tables.items()}
        land(frames, out, _date(path))


def _date(path: Path) -> Any:
    return pl.Series([path.name.removeprefix("day=")]).str.to_date()[0]


def _moved(name: str, table: pl.DataFrame, copies: pl.DataFrame, wins: dict[str, str]) -> pl.DataFrame:
    if name == "outcomes":
        known = pl.DataFrame({"request_id": list(wins), "won": list(wins.values())})
        joined = table.join(known, on="request_id", how="left", maintain_order="left")
        joined = joined.join(copies.select(won="new", later="later"), on="won", how="left", maintain_order="left")
        wait = pl.col("later").fill_null(pl.duration())
        moved = joined.with_columns(pl.coalesce("won", "request_id").alias("request_id"), *_later(table, wait))
        return moved.select(table.columns)
    joined = table.join(copies, on="request_id", how="inner", maintain_order="left")
    user = [pl.coalesce("new_user", "user_id").alias("user_id")] if "user_id" in table.columns else []
    made = joined.with_columns(pl.col("new").alias("request_id"), *user, *_later(table, pl.col("later")))
    return pl.concat([table, made.select(table.columns)])


def _later(table: pl.DataFrame, wait: pl.Expr) -> list[pl.Expr]:
    return [pl.col(name) + wait for name in TIMES if name in table.columns]
