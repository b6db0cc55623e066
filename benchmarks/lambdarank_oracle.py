"""The trainer against plain LightGBM, on LightGBM's own lambdarank example.

The product's path (rows with gains and exposure, its objective's settings, a model as text) and a bare
``lightgbm.train`` call get the same arrays, settings and seed. NDCG on the 50 test queries must be equal to 1e-9, and
the text of the model the same for any number of threads.
"""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence import PROJECT, Claim, finding
from sameworld.maths.ranking import ndcg_by_request
from sameworld.models.training import Rows, fit_ranker

EXAMPLE = PROJECT / "examples" / "lightgbm_lambdarank"
FEATURES = 300
SETTINGS = {
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "min_sum_hessian_in_leaf": 5.0,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
    "max_bin": 255,
    "num_threads": 1,
    "seed": 1,
}
PLAIN = {"objective": "lambdarank", "deterministic": True, "force_row_wise": True, "verbosity": -1}

Example = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]


def example(part: str) -> Example:
    """Return matrix, labels and rows a query of ``train`` or ``test``; a feature that a line lacks is 0."""
    lines = gzip.decompress((EXAMPLE / f"rank.{part}.gz").read_bytes()).decode().splitlines()
    matrix, label = np.zeros((len(lines), FEATURES + 1), np.float32), np.zeros(len(lines))
    for row, line in enumerate(lines):
        first, *cells = line.split()
        label[row] = float(first)
        for cell in cells:
            index, _, value = cell.partition(":")
            matrix[row, int(index)] = float(value)
    return matrix, label, np.loadtxt(EXAMPLE / f"rank.{part}.query", dtype=np.int64)


def as_rows(matrix: NDArray[np.float32], label: NDArray[np.float64], sizes: NDArray[np.int64]) -> Rows:
    """Return the product's rows: graded labels are gains 2^label − 1, everything was seen and waited for."""
    ones, position = np.ones(len(label)), np.concatenate([np.arange(1, size + 1) for size in sizes])
    return Rows(matrix, (label > 0).astype(np.float64), 2.0**label - 1.0, ones, ones, sizes, position)


def ours(train: Example, settings: dict[str, Any], rounds: int) -> str:
    """Return the product's model as text."""
    rows = as_rows(*train)
    return fit_ranker(rows, stop=None, settings=settings, max_rounds=rounds, patience=1, categories=[]).text


def theirs(train: Example, settings: dict[str, Any], rounds: int) -> lgb.Booster:
    """Return the model of a bare ``lightgbm.train``."""
    data = lgb.Dataset(train[0], train[1], group=train[2], params={"verbosity": -1})
    return lgb.train({**settings, **PLAIN}, data, rounds)


def ndcg(test: Example, score: NDArray[np.float64], k: int) -> float:
    """Return the mean NDCG@k of the test queries; one without a relevant document counts as 1, as LightGBM has it."""
    request = np.repeat(np.arange(len(test[2])), test[2])
    value, counted = ndcg_by_request(request, score, 2.0 ** test[1] - 1.0, k)
    return float(np.where(counted, value, 1.0).mean())


def run(small: bool) -> dict[str, Any]:
    """Compare one seed at 100 trees, or five."""
    train, test, claims, figures = example("train"), example("test"), [], {}
    for seed in range(1, 2 if small else 6):
        settings = {**SETTINGS, "seed": seed}
        text, plain = ours(train, settings, 100), theirs(train, settings, 100)
        score = np.asarray(lgb.Booster(model_str=text).predict(test[0]))
        for k in (1, 3, 5):
            mine, other = ndcg(test, score, k), ndcg(test, np.asarray(plain.predict(test[0])), k)
            figures[f"seed {seed} ndcg@{k}"] = {"found": mine, "reference": other}
            claim = Claim(f"NDCG@{k}, seed {seed}", f"{mine:.6f}", f"{other:.6f}", abs(mine - other) <= 1e-9)
            claims.append(claim)
    threads = (1, 2) if small else (1, 2, 4, 16)
    hashes = {n: _digest(ours(train, {**SETTINGS, "num_threads": n}, 100)) for n in threads}
    alike, names = len(set(hashes.values())) == 1, ", ".join(map(str, threads))
    claims.append(Claim(f"model text with {names} threads", " ".join(sorted(set(hashes.values()))), "one hash", alike))
    return finding(seed=1, claims=claims, figures=figures)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
