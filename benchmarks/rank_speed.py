"""Loading a bundle and ranking a request's candidates, against the sum of its boosters' own predict calls.

A bundle of two boosters of 200 trees with 15 leaves, 40 features (30 floats, 5 integers, 2 bools, 3 categories of up to
500 levels) and the history of 20,000 items, written and loaded as the product does. A hundred candidates come as a
frame and are ranked: ids checked, features read, both models asked, positions and probabilities added. Beside it the
two ``predict`` calls alone, on the matrix made beforehand, turn about in the same process; the median turn counts. What
is claimed are processor seconds, which a busy machine disturbs less; seconds by the clock stand beside them.
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.evidence import Claim, finding
from sameworld.maths.calibration import PlattCalibrator
from sameworld.models.bundle import Bundle, ItemStatistics, load_bundle, write_bundle
from sameworld.models.features import Feature, feature_matrix
from sameworld.models.item_history import ItemHistory, history_features
from sameworld.models.rank import model_matrix, rank
from sameworld.store.artifacts import Store

MOST_TIMES = 1.5
SEED, CANDIDATES, ITEMS = 1, 100, 20_000
FLOATS, INTS, BOOLS = 30, 5, 2
LEVELS = {"x_category": 500, "x_country": 40, "x_surface": 4}
SETTINGS = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.03, "seed": SEED, "verbosity": -1}


def rows(count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return candidates of one request, with a null here and there."""
    values: dict[str, Any] = {f"x_float_{n:02d}": rng.standard_normal(count, dtype=np.float32) for n in range(FLOATS)}
    values |= {f"x_int_{n}": rng.integers(0, 100, count, dtype=np.int32) for n in range(INTS)}
    values |= {f"x_bool_{n}": rng.random(count) < 0.3 for n in range(BOOLS)}
    values |= {name: [f"level-{n}" for n in rng.integers(0, levels, count)] for name, levels in LEVELS.items()}
    frame = pl.DataFrame({"request_id": ["r"] * count, "item_id": [f"i{n}" for n in range(count)], **values})
    known = pl.Series(rng.random(count) > 0.05)
    return frame.with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in ("x_float_03", "x_int_2"))


def features() -> tuple[Feature, ...]:
    """Return the features that ``rows`` has, sorted by name."""
    found = [Feature(f"x_float_{n:02d}", "number") for n in range(FLOATS)]
    found += [Feature(f"x_int_{n}", "number") for n in range(INTS)]
    found += [Feature(f"x_bool_{n}", "bool") for n in range(BOOLS)]
    found += [
        Feature(name, "category", tuple(sorted(f"level-{n}" for n in range(levels)))) for name, levels in LEVELS.items()
    ]
    return tuple(sorted(found, key=lambda feature: feature.name))


def write(folder: Path, *, trees: int, sample: int) -> None:
    """Train two boosters and write a bundle's files."""
    rng = np.random.default_rng(SEED)
    frame, known = rows(sample, rng), features()
    ids = np.sort(np.array([f"i{n}" for n in range(ITEMS)]))
    history = ItemHistory(ids, ("click", "purchase"), rng.normal(size=(2, ITEMS)), rng.normal(0.0, 0.1, ITEMS))
    matrix = np.concatenate([feature_matrix(frame, known), history.of(frame["item_id"])[0]], axis=1)
    names = (*known, *history_features(history.kinds))
    liked = matrix[:, next(n for n, one in enumerate(names) if one.name == "x_float_00")] + matrix[:, -1]
    about = {
        "version": "20260302-00000000", "cutoff": "2026-03-02T00:00:00Z", "start": -3.0, "examination": [1.0, 0.5],
        "features": [one.as_record() for one in names], "calibrator": PlattCalibrator(1.0, 0.0).as_record(),
    }  # fmt: skip
    texts = [_booster(matrix, liked, names, trees, rng) for _ in range(2)]
    items = ItemStatistics(ids, np.full(ITEMS, 0.1), 0.1)
    write_bundle(folder, ranker=texts[0], probability=texts[1], items=items, history=history, about=about)
    (folder / "record.json").write_bytes(b'{"version":"20260302-00000000"}')


def _booster(
    matrix: NDArray[np.float32], liked: NDArray[np.float32], names: tuple[Feature, ...], trees: int,
    rng: np.random.Generator,
) -> str:  # fmt: skip
    label = rng.random(len(matrix)) < 1.0 / (1.0 + np.exp(1.0 - liked))
    categories = [place for place, feature in enumerate(names) if feature.kind == "category"]
    data = lgb.Dataset(matrix, label.astype(np.float32), categorical_feature=categories)
    return str(lgb.train(SETTINGS, data, trees).model_to_string())


def loaded(folder: Path, *, trees: int, sample: int) -> tuple[Bundle, float, int]:
    """Publish a bundle and load it: the bundle, the seconds of loading, and how often anything was unpickled."""
    (folder / "files").mkdir()
    write(folder / "files", trees=trees, sample=sample)
    artifact = Store(str(folder / "root")).publish("calibrate", "a" * 64, folder / "files", made_from={}, measured={})
    with mock.patch.object(pickle, "load") as load, mock.patch.object(pickle, "loads") as loads:
        started = time.perf_counter()
        bundle = load_bundle(artifact)
        seconds = time.perf_counter() - started
    return bundle, seconds, load.call_count + loads.call_count


def medians(works: dict[str, Callable[[], Any]], *, turns: int, calls: int) -> dict[str, tuple[float, float]]:
    """Return each work's milliseconds a call, the processor's and the clock's: works take turns, the median counts."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(turns):
        for name, work in works.items():
            busy, started = time.process_time(), time.perf_counter()
            for _ in range(calls):
                work()
            each = 1e3 / calls
            found[name].append((each * (time.process_time() - busy), each * (time.perf_counter() - started)))
    return {
        name: (statistics.median(one[0] for one in took), statistics.median(one[1] for one in took))
        for name, took in found.items()
    }


def run(small: bool) -> dict[str, Any]:
    """Load, rank, and compare; the small size claims nothing of time."""
    trees, sample, turns = (20, 2_000, 3) if small else (200, 20_000, 41)
    candidates = rows(CANDIDATES, np.random.default_rng(SEED + 1))
    with tempfile.TemporaryDirectory(prefix="sameworld-rank-") as folder:
        bundle, seconds, unpickled = loaded(Path(folder), trees=trees, sample=sample)
    boosters = [bundle.probability, *([bundle.ranker] if bundle.ranker else [])]
    matrix, residual = model_matrix(candidates, bundle)
    works: dict[str, Callable[[], Any]] = {
        "rank": lambda: rank(candidates, bundle),
        "predict": lambda: [booster.predict(matrix, raw_score=True) for booster in boosters],
    }
    took = medians(works, turns=turns, calls=20)
    (ours, our_clock), (theirs, their_clock) = took["rank"], took["predict"]
    times = ours / theirs
    own = boosters[-1].predict(matrix, raw_score=True) + residual
    off = float(np.abs(rank(candidates, bundle)["score"].to_numpy() - own).max())
    found = f"{ours:.2f} ms: {times:.2f} times, {our_clock / their_clock:.2f} by the clock"
    reference = f"{theirs:.2f} ms; at most {MOST_TIMES} times"
    what = f"ranking {CANDIDATES} candidates by 2 × {trees} trees"
    claims = [
        Claim(what, found, reference, holds=small or times <= MOST_TIMES),
        Claim("scores off the booster's own", f"{off:g}", "0", holds=off == 0.0),
        Claim(f"unpickled while loading ({seconds:.2f} s)", f"{unpickled}", "0", holds=unpickled == 0),
    ]
    return finding(seed=SEED, claims=claims, figures={"milliseconds": took, "loading_seconds": seconds})
