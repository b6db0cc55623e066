"""Are the delay curves true, and their intervals honest? Logs of 60 days in worlds whose delays are known.

Five worlds: outcomes that take hours, days (exponential of mean 36 h) or a week, two humps (60 % in hours, the others
around three days), and a weekly rhythm in which nothing happens from Saturday to Monday. Outcomes then land after a
gamma lag. A log is cut off after 60 days: the young impressions' outcomes are missing, as in production. A curve is
that of all impressions, so with a weekly rhythm it averages over the weekday of showing.
Claims: with 20 000 known outcomes or more the largest error of F over all ages is at most 0.02; over 200 logs the 95 %
interval covers the truth as often as it says, at each of five ages (a binomial band that 1 honest count in 2000
leaves). And once through the product's own steps: a drop with two segments, ingested, resolved and measured.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binom

from benchmarks._delay_worlds import DAY, WEEK, WORLDS, Delays, Floats, censored, known_ages, shown_times, true_arrivals
from benchmarks.evidence import Claim, finding
from sameworld.maths.delay import DelayCurve, fit_delay_curve
from sameworld.sources.landing import land
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from tasks import ingest, measure_delay, resolve

RATE, LARGEST_ERROR = 0.2, 0.02
SHARES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])  # intervals are judged at the ages at which the truth is this
FIRST_DAY = date(2026, 3, 2)  # a Monday
BY_SEGMENT = {"fast": WORLDS[3], "weekday": WORLDS[4]}  # one window and two shapes: a drop with two segments
TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Size:
    """How large: days of a log, impressions, logs whose intervals are counted, draws of the truth, allowed error."""

    days: int
    impressions: int
    seeds: int
    draws: int
    error: float


SIZES = {
    "small": Size(days=60, impressions=12_000, seeds=40, draws=400_000, error=0.06),
    "full": Size(days=60, impressions=160_000, seeds=200, draws=4_000_000, error=LARGEST_ERROR),
}


def run(small: bool) -> dict[str, Any]:
    """Measure each world's curve, over many logs, and one drop by the product's steps."""
    size = SIZES["small" if small else "full"]
    figures = {delays.name: one_world(delays, size) for delays in WORLDS}
    through_steps = measured_by_the_product(size)
    claims = [claim for name, found in figures.items() for claim in _claims(name, found, size)]
    claims += [_error_claim(f"measured by the steps, segment {name}", one, size) for name, one in through_steps.items()]
    return finding(seed=0, claims=claims, figures={**figures, "steps": through_steps})


def one_world(delays: Delays, size: Size) -> dict[str, Any]:
    """Fit a curve to each of many logs; return the first one's largest error, and how often each interval covers."""
    ages = np.linspace(0.0, delays.horizon_hours, 1001)
    truth = _shares(true_arrivals(delays, size.draws), ages)
    places = np.array([int(np.searchsorted(truth, share)) for share in SHARES])
    covered, errors, known = np.zeros(len(SHARES), np.int64), [], []
    for seed in range(size.seeds):
        curve = _curve(delays, seed, size)
        errors.append(_largest(curve, ages, truth))
        known.append(curve.events)
        covered += [_covers(curve, ages[place], truth[place]) for place in places]
    return {
        "events": int(np.min(known)),
        "error": float(errors[0]),
        "error_median": float(np.median(errors)),
        "error_largest": float(np.max(errors)),
        "covered": covered.tolist(),
    }


def _curve(delays: Delays, seed: int, size: Size) -> DelayCurve:
    rng = np.random.default_rng([1, seed])
    shown = shown_times(rng, size.impressions, size.days)
    known = np.where(rng.random(shown.size) < RATE, known_ages(rng, shown, delays), np.nan)
    log = censored(shown, known, size.days * DAY)
    return fit_delay_curve(*log, horizon_hours=delays.horizon_hours, rhythm_hours=WEEK)


def _largest(curve: DelayCurve, ages: Floats, truth: Floats) -> float:
    return float(np.abs(curve.at(ages) - truth).max())


def _covers(curve: DelayCurve, age: float, truth: float) -> bool:
    found = curve.estimate_at(age)
    return bool(found.low <= truth <= found.high)


def measured_by_the_product(size: Size) -> dict[str, Any]:
    """Write a drop with a segment of each of two worlds, and let the product's steps measure it."""
    with tempfile.TemporaryDirectory() as folder:
        drop = Path(folder) / "drop"
        _write_drop(drop, size)
        label = {"gains": {"click": 1.0}, "target": "click", "window_days": 7.0, "segments": ["x_segment"]}
        spec = Spec.parse({"source": {"kind": "drop", "uri": str(drop)}, "label": label})
        store, cutoff = Store(str(Path(folder) / "root")), f"{FIRST_DAY + timedelta(days=size.days)}T00:00:00Z"
        days = ingest.run(store=store, spec=spec, cutoff=cutoff)
        log = resolve.run(store=store, spec=spec, days=days, cutoff=cutoff)
        record = artifact_at(measure_delay.run(store=store, spec=spec, log=log, cutoff=cutoff)).record
    curves = {name: DelayCurve.from_record(record["curves"]["click"][name]) for name in BY_SEGMENT}
    return {
        name: {"events": curve.events, "error": _step_error(curve, size.draws, BY_SEGMENT[name])}
        for name, curve in curves.items()
    }


def _step_error(curve: DelayCurve, draws: int, delays: Delays) -> float:
    """Compare with the truth up to the horizon that the product chose: that of the segment whose landing is slowest."""
    ages = np.linspace(0.0, curve.horizon_hours, 1001)
    arrivals = true_arrivals(delays, draws)
    return _largest(curve, ages, _shares(arrivals[arrivals <= curve.horizon_hours], ages))


def _shares(arrivals: Floats, ages: Floats) -> Floats:
    return np.asarray(np.searchsorted(arrivals, ages, side="right") / arrivals.size)


def _write_drop(out: Path, size: Size) -> None:
    rng = np.random.default_rng(2)
    shown, known, happened = (np.concatenate(parts) for parts in zip(*_segments(rng, size), strict=True))
    segment = np.repeat(np.array(list(BY_SEGMENT)), size.impressions)
    landed = shown + rng.gamma(4.0, 0.02, shown.size)
    request = pl.Series([f"r{number:07d}" for number in range(shown.size)])
    impressions = pl.DataFrame(
        {
            "request_id": request,
            "item_id": pl.repeat("i", shown.size, eager=True),
            "user_id": request,
            "position": pl.repeat(1, shown.size, dtype=pl.Int32, eager=True),
            "shown_at": _times(shown),
            "arrived_at": _times(landed),
            "x_segment": pl.Series(segment),
        }
    )
    came = np.flatnonzero(~np.isnan(known))
    outcomes = pl.DataFrame(
        {
            "request_id": request.gather(came),
            "item_id": pl.repeat("i", came.size, eager=True),
            "kind": pl.repeat("click", came.size, eager=True),
            "happened_at": _times(happened[came]),
            "arrived_at": _times(known[came]),
        }
    )
    for number in range(size.days):
        day = FIRST_DAY + timedelta(days=number)
        tables = {"impressions": impressions, "outcomes": outcomes}
        land({name: _arrived(frame, day) for name, frame in tables.items()}, out, day)


def _segments(rng: np.random.Generator, size: Size) -> list[tuple[Floats, Floats, Floats]]:
    """Draw each segment's times of showing, and of happening and arrival; NaN where nothing comes."""
    found = []
    for delays in BY_SEGMENT.values():
        shown = shown_times(rng, size.impressions, size.days)
        wait = np.where(rng.random(shown.size) < RATE, delays.wait(rng, shown, 1.0), np.nan)
        landing = rng.gamma(4.0, delays.landing_hours / 4.0, shown.size)
        found.append((shown, shown + wait + landing, shown + wait))
    return found


def _times(hours: Floats) -> pl.Series:
    start = int(datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC).timestamp()) * 1_000_000
    micros: NDArray[np.int64] = start + np.rint(hours * 3.6e9).astype(np.int64)
    return pl.Series(micros).cast(TIME)


def _arrived(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return frame.filter(pl.col("arrived_at").dt.date() == day).sort("arrived_at", "request_id")


def _claims(world: str, found: dict[str, Any], size: Size) -> list[Claim]:
    low, high = (int(binom.ppf(share, size.seeds, 0.95)) for share in (0.00025, 0.99975))
    fits = all(low <= count <= high for count in found["covered"])
    counts = ", ".join(str(count) for count in found["covered"])
    at = ", ".join(f"{share:g}" for share in SHARES)
    words = f"{world}: intervals that cover the truth, of {size.seeds}, where it is {at}"
    return [_error_claim(world, found, size), Claim(words, counts, f"{low} to {high}", fits)]


def _error_claim(what: str, found: dict[str, Any], size: Size) -> Claim:
    words = f"{what}: largest error of F, with {found['events']:,} known outcomes or more"
    over = f" (largest of {size.seeds} logs {found['error_largest']:.4f})" if "error_largest" in found else ""
    holds = found.get("error_largest", found["error"]) <= size.error
    return Claim(words, f"{found['error']:.4f}{over}", f"at most {size.error:g}", holds)
