"""Writes a drop of any size, in the shape of the contract, day by day and part by part, so memory stays bounded.

What a row says is drawn from (seed, day, part): the same arguments write the same rows. Rows are dealt to the day on
which they arrive. Requests name the tau and epsilon that drew their order, but no candidates; a few impressions are
sent again the day after, as exporters do.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.evidence import Claim, finding

FIRST = date(2026, 3, 1)
FIRST_INSTANT = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
SLOTS = 10
PART_REQUESTS = 50_000  # half a million rows a file: what a part needs in memory does not grow with the drop
CLICK_RATE, PURCHASE_RATE = 0.05, 0.15  # of the impressions, of the clicks
RESENT_SHARE = 0.001
FLOATS, INTS = 30, 5
NULL_SHARES = {"x_float_03": 0.02, "x_float_07": 0.10, "x_float_11": 0.01, "x_int_2": 0.05, "x_country": 0.01,
               "x_bool_1": 0.03}  # fmt: skip
SURFACES, CATEGORIES = 4, {"x_country": 40, "x_category": 500}
VIEW, VIEW_COLUMN = "item_stats", "item_quality_estimate"
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
INSTANT = pl.Datetime("us", "UTC")
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so numbers stay different; ids look like hashes and compress like them
_PRIMES = (211, 2_003, 20_011)  # so that any stride visits different items
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """How much a drop holds: ``rows`` impressions over the first ``days``, as many a day on ``extra_days`` after."""

    rows: int
    days: int = 30
    extra_days: int = 0

    @property
    def requests(self) -> Ints:
        """Requests by day, as even as can be."""
        edges = np.linspace(0, self.rows // SLOTS, self.days + 1).astype(np.int64)
        each = np.diff(edges)
        return np.concatenate([each, np.full(self.extra_days, each[-1])])

    @property
    def items(self) -> int:
        """Items of the catalogue."""
        return _PRIMES[0] if self.rows < 100_000 else _PRIMES[1] if self.rows < 1_000_000 else _PRIMES[2]

    @property
    def users(self) -> int:
        """Users who come."""
        return max(100, self.rows // 100)


def write_drop(out: Path, size: Size, *, seed: int = 1) -> dict[str, int]:
    """Write a drop and return its rows by table; outcomes that arrive after the last day are not written.

    Impressions: 30 float32, 5 int32, 3 string and 2 bool features, some with nulls. A click comes minutes to hours
    after, a purchase hours to days; both land within two days. The view has a batch of all items every day.
    """
    counts = dict.fromkeys(("requests", "impressions", "outcomes", f"features/{VIEW}"), 0)
    waiting: list[pl.DataFrame] = []
    resent: list[pl.DataFrame] = []
    first = 0
    for number, requests in enumerate(size.requests):
        folder = out / f"day={FIRST + timedelta(days=number)}"
        again, resent = resent, []
        for name, part, frame in _parts(size, number, first, int(requests), seed, waiting, resent):
            counts[name] += _write(folder / name / f"part-{part:04d}.parquet", frame)
        due, waiting = _landed(waiting, number)
        counts["outcomes"] += _write(folder / "outcomes" / "part-0000.parquet", due)
        counts["impressions"] += sum(
            _write(folder / "impressions" / f"again-{part:04d}.parquet", frame) for part, frame in enumerate(again)
        )
        counts[f"features/{VIEW}"] += _write(
            folder / "features" / VIEW / "part-0000.parquet", _batch(size, number, seed)
        )
        (folder / "_SUCCESS").touch()
        first += int(requests)
    return counts


def run(small: bool) -> dict[str, Any]:
    """Write a drop and compare what it holds, and how long it took, with what was asked for."""
    size = Size(200_000 if small else 3_000_000)
    with tempfile.TemporaryDirectory(prefix="sameworld-drop-") as folder:
        started = time.perf_counter()
        written = write_drop(Path(folder), size)
        seconds = 1e6 * (time.perf_counter() - started) / size.rows
        held = pl.scan_parquet(f"{folder}/*/impressions/part-*.parquet").select(pl.len()).collect().item()
    claims = [
        Claim("impressions, sent again aside", f"{held:,}", f"{size.rows:,}", holds=held == size.rows),
        Claim("seconds a million impressions", f"{seconds:.1f}", "at most 10", holds=seconds <= 10),
    ]
    return finding(seed=1, claims=claims, figures={"rows": written, "seconds_a_million": seconds})


def _parts(
    size: Size,
    day: int,
    first: int,
    requests: int,
    seed: int,
    waiting: list[pl.DataFrame],
    resent: list[pl.DataFrame],
) -> Iterator[tuple[str, int, pl.DataFrame]]:
    """Yield a day's requests and impressions in parts; what comes of them later goes to ``waiting`` and ``resent``."""
    for part, start in enumerate(range(0, requests, PART_REQUESTS)):
        rng = np.random.default_rng([seed, day, part])
        numbers = np.arange(first + start, first + min(start + PART_REQUESTS, requests))
        asked = _requests(rng, numbers, day, size.users)
        shown = _impressions(rng, asked, size.items)
        yield "requests", part, asked
        yield "impressions", part, shown
        waiting.append(_outcomes(rng, shown))
        chosen = pl.Series(rng.random(len(shown)) < RESENT_SHARE)
        resent.append(shown.filter(chosen).with_columns(pl.col("arrived_at") + timedelta(days=1)))


def _requests(rng: np.random.Generator, numbers: Ints, day: int, users: int) -> pl.DataFrame:
    arrived = _day_start_us(day) + np.sort(rng.integers(0, DAY_US, len(numbers)))
    shown = arrived - rng.exponential(120e6, len(numbers)).clip(1e6, HOUR_US).astype(np.int64)
    drawn = pl.DataFrame({"user": rng.integers(0, users, len(numbers)), "branch": rng.random(len(numbers)) < 0.9})
    return drawn.select(
        request_id=_ids("r", numbers),
        user_id=pl.format("u{}", "user"),
        surface=_names("surface-", SURFACES)[pl.Series(rng.integers(0, SURFACES, len(numbers)))],
        policy_id=pl.lit("softmax"),
        model_version=pl.lit(f"v{day:03d}"),
        branch=pl.when("branch").then(pl.lit("model")).otherwise(pl.lit("shuffle")),
        shown_at=pl.Series(shown).cast(INSTANT),
        arrived_at=pl.Series(arrived).cast(INSTANT),
        tau=pl.lit(0.7),
        epsilon=pl.lit(0.1),
        seed=pl.Series(numbers),
    )


def _impressions(rng: np.random.Generator, asked: pl.DataFrame, items: int) -> pl.DataFrame:
    """Return ten rows a request; a stride through the catalogue keeps a request's items apart."""
    count = len(asked)
    start, stride = rng.integers(0, items, count), rng.integers(1, items, count)
    item = (start[:, None] + stride[:, None] * np.arange(SLOTS)).ravel() % items
    of_request = pl.Series(np.repeat(np.arange(count), SLOTS))
    position = np.tile(np.arange(1, SLOTS + 1, dtype=np.int32), count)
    rows = asked.select("request_id", "user_id", "shown_at", "arrived_at", x_surface="surface")[of_request]
    features = _features(rng, len(rows), item)
    frame = rows.with_columns(item_id=_names("i", items)[pl.Series(item)], position=pl.Series(position), **features)
    gone = {name: pl.Series(rng.random(len(rows), dtype=np.float32) >= share) for name, share in NULL_SHARES.items()}
    return frame.with_columns(pl.when(kept).then(pl.col(name)).alias(name) for name, kept in gone.items())


def _features(rng: np.random.Generator, rows: int, item: Ints) -> dict[str, pl.Series]:
    """Return the served features; the first float leans on the item, and outcomes lean on it in turn."""
    found = {f"x_float_{n:02d}": rng.standard_normal(rows, dtype=np.float32) for n in range(FLOATS)}
    found["x_float_00"] += np.sin(item).astype(np.float32)
    ints = {f"x_int_{n}": rng.integers(0, 10 ** (n + 1), rows, dtype=np.int32) for n in range(INTS)}
    bools = {f"x_bool_{n}": rng.random(rows, dtype=np.float32) < 0.3 for n in range(2)}
    served = {name: pl.Series(values) for name, values in {**found, **ints, **bools}.items()}
    for name, count in CATEGORIES.items():
        served[name] = _names(f"{name[2:]}-", count)[pl.Series(rng.integers(0, count, rows, dtype=np.int32))]
    return served


def _outcomes(rng: np.random.Generator, shown: pl.DataFrame) -> pl.DataFrame:
    """Return clicks, and purchases among them, of these impressions, whenever they arrive."""
    appeal = np.exp(0.5 * shown["x_float_00"].to_numpy().astype(np.float64) - 0.15 * shown["position"].to_numpy())
    clicked = shown.filter(pl.Series(rng.random(len(shown)) < CLICK_RATE * appeal / appeal.mean()))
    bought = clicked.filter(pl.Series(rng.random(len(clicked)) < PURCHASE_RATE))
    clicks = _landing(rng, clicked, "click", mean_hours=1.0, value=None)
    return pl.concat([clicks, _landing(rng, bought, "purchase", mean_hours=20.0, value=19.9)])


def _landing(
    rng: np.random.Generator, rows: pl.DataFrame, kind: str, *, mean_hours: float, value: float | None
) -> pl.DataFrame:
    delay = rng.exponential(mean_hours, len(rows)).clip(0.01, 144)
    lag = rng.gamma(2.0, 3.0, len(rows)).clip(0.2, 48)
    after = [pl.Series((hours * HOUR_US).astype(np.int64)).cast(pl.Duration("us")) for hours in (delay, delay + lag)]
    return rows.select(
        "request_id",
        "item_id",
        kind=pl.lit(kind),
        value=pl.lit(value, dtype=pl.Float64),
        happened_at=pl.col("shown_at") + after[0],
        arrived_at=pl.col("shown_at") + after[1],
    )


def _landed(waiting: list[pl.DataFrame], day: int) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Split what is under way into what arrives by the day's end, in the order of arrival, and the rest."""
    under_way = pl.concat(waiting)
    due = pl.col("arrived_at") < FIRST_INSTANT + timedelta(days=day + 1)
    # An outcome of an impression shown just before midnight may be due before its impression's own day.
    arrived = pl.col("arrived_at").clip(lower_bound=FIRST_INSTANT + timedelta(days=day))
    landed = under_way.filter(due).with_columns(arrived).sort("arrived_at", "request_id", "item_id", "kind")
    return landed, [under_way.filter(~due)]


def _batch(size: Size, day: int, seed: int) -> pl.DataFrame:
    """Return the day's batch of the item view, readable from four o'clock on."""
    rng = np.random.default_rng([seed, day])
    quality = np.sin(np.arange(size.items)) + rng.normal(0, 0.1, size.items)
    available = FIRST_INSTANT + timedelta(days=day, hours=4)
    return pl.DataFrame({"item_id": _names("i", size.items), VIEW_COLUMN: quality}).with_columns(
        available_at=pl.lit(available, dtype=INSTANT)
    )


def _day_start_us(day: int) -> int:
    return int(FIRST_INSTANT.timestamp()) * 1_000_000 + day * DAY_US


def _ids(prefix: str, numbers: Ints) -> pl.Series:
    return prefix + pl.Series(numbers.astype(np.uint64) * _SPREAD).cast(pl.String)


def _names(prefix: str, count: int) -> pl.Series:
    return prefix + pl.Series(np.arange(count)).cast(pl.String)


def _write(path: Path, frame: pl.DataFrame) -> int:
    """Write a file as an exporter would; a table without rows has none."""
    if frame.height:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path, compression="zstd", compression_level=1)
    return frame.height
