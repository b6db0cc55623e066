"""The product's training against a bare ``lightgbm.train`` on the same matrix: seconds and memory.

A drop of ``benchmarks/big_drop.py`` goes through the product's steps up to the training set: 41 features, outcomes in
one impression of twenty. Each model is fitted as the product fits it, with positions and delays in its likelihood, and
by LightGBM's own binary objective with the same matrix, rounds and parameters, turn about; the whole step ``train``,
which fits four, reads its table, learns items' histories and writes, stands beside four bare trainings, each of which
bins its own matrix. The pandas way reads the training set into a DataFrame and trains one model. Every piece has a
process of its own; imports, and the reading of a matrix for a single model, do not count. Where the machine was busy
with other work, processor seconds say more than seconds.

Other sizes: ``python -m benchmarks.train_speed --rows 1000000 --rounds 100``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._floors import Piece
from benchmarks.big_drop import FIRST, VIEW, VIEW_COLUMN, Size, write_drop
from benchmarks.evidence import PROJECT, Claim, commit, finding, page, table
from benchmarks.steps import Cost, _alone
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import day_end, time_text
from tasks.flow import find_step, perform

MOST_TIMES = 1.3
MODELS = ("probability", "gain")
SEED = 1
Run = Callable[[Callable[[], Piece], Path], Cost]


@dataclass(frozen=True)
class Asked:
    """Impressions, trees of each model, and how often each pair is measured; ``timed`` where seconds are claims."""

    rows: int
    rounds: int
    turns: int
    timed: bool = True
    days: int = 30


SIZES = {"small": Asked(6_000, 5, 1, timed=False, days=12), "full": Asked(10_000_000, 100, 1)}


@dataclass(frozen=True)
class Pair:
    """A piece of the product's work and what it is measured against, the quickest of their turns."""

    what: str
    ours: Cost
    plain: Cost

    @property
    def times(self) -> float:
        """How many times the plain way's seconds the product takes."""
        return self.ours.seconds / self.plain.seconds

    def claim(self, *, timed: bool) -> Claim:
        """The seconds of both, and the bound."""
        busy = self.ours.cpu_seconds / self.plain.cpu_seconds
        found = f"{_told(self.ours)}: {self.times:.2f} times, {busy:.2f} in processor seconds"
        holds = self.times <= MOST_TIMES or not timed
        return Claim(self.what, found, f"{_told(self.plain)}; at most {MOST_TIMES} times", holds=holds)


def _told(cost: Cost) -> str:
    return f"{cost.seconds:.1f} s, {cost.peak_mb:,.0f} MB"


def spec(drop: Path, asked: Asked) -> Spec:
    """Return the benchmark's spec: every fit may take all rounds, none stops early."""
    label = {"gains": {"click": 1.0, "purchase": 5.0}, "target": "purchase", "segments": ["x_surface"]}
    views, train = {VIEW: [VIEW_COLUMN]}, {"max_rounds": asked.rounds, "early_stopping_rounds": asked.rounds}
    return Spec.parse({
        "source": {"uri": str(drop)}, "label": label, "features": {"views": views}, "train": train,
    })  # fmt: skip


def prepare(folder: Path, asked: Asked) -> None:
    """Write a drop, run the steps up to the training set, and lay its matrix and what goes beside it down as arrays."""
    from sameworld.models.training_table import TrainingTable, exposed
    from sameworld.store.parts import examples_of
    from tasks.run import planned

    write_drop(folder / "drop", Size(asked.rows, asked.days), seed=SEED)
    store, wanted = Store(str(folder / "root")), spec(folder / "drop", asked)
    *before, train = planned(time_text(day_end(FIRST + timedelta(days=asked.days - 1)))).only("train")
    handles: dict[str, Any] = {}
    for call in [one for one in before if not one.name.startswith("validate.")]:
        inputs = {name: handles.get(getattr(value, "key", ""), value) for name, value in call.inputs.items()}
        handles[call.key] = perform(call.name, store=store, spec=wanted, **inputs)
    inputs = {name: handles.get(getattr(value, "key", ""), value) for name, value in train.inputs.items()}
    (folder / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    examples = store.open(inputs["examples"]["uri"])
    read = TrainingTable.read(examples, store)
    features = [feature.name for feature in read.features]
    examples_of(examples, store).select(*features, "target").sink_parquet(folder / "training.parquet")
    np.save(folder / "matrix.npy", read.matrix)
    categories = [place for place, feature in enumerate(read.features) if feature.kind == "category"]
    np.savez(
        folder / "beside.npz",
        target=read.target, gain=read.gain, position=read.position, categories=categories,
        exposure=exposed(1.0 / np.sqrt(read.position), read.completeness),
        weight=np.minimum(1.0 / np.maximum(read.completeness, 1e-3), 5.0),
        early=read.shown_at < np.datetime64(examples.record["splits"]["stop"].rstrip("Z")),
    )  # fmt: skip


def settings(folder: Path, asked: Asked) -> dict[str, Any]:
    """Return the parameters that the product gives to LightGBM."""
    from sameworld.models.training import DETERMINISTIC
    from tasks.train import SPREAD

    train = spec(folder, asked).train
    return {
        "learning_rate": train.learning_rate, "num_leaves": train.leaves, "min_data_in_leaf": train.min_leaf_rows,
        "seed": train.seed, **SPREAD, "min_sum_hessian_in_leaf": train.min_leaf_positives, **DETERMINISTIC,
    }  # fmt: skip


def product(model: str, folder: Path, asked: Asked) -> Piece:
    """Fit one model as the product does, from its matrix."""
    from sameworld.models.training import Rows, fit_gain, fit_probability

    beside, matrix = dict(np.load(folder / "beside.npz")), np.load(folder / "matrix.npy")
    rows = Rows(
        matrix, beside["target"], beside["gain"], beside["exposure"], beside["weight"], np.zeros(0, np.int64),
        beside["position"],
    )  # fmt: skip
    fit = fit_gain if model == "gain" else fit_probability
    how = {"stop": None, "max_rounds": asked.rounds, "patience": 1, "categories": beside["categories"].tolist()}
    return lambda: fit(rows, settings=settings(folder, asked), **how).rounds


def plain(model: str, folder: Path, asked: Asked, *, rounds: int = 0, early: bool = False, own: bool = False) -> Piece:
    """Train with LightGBM's binary objective; ``early`` leaves the hold-out out, ``own`` takes LightGBM's defaults."""
    import lightgbm as lgb

    beside, matrix = dict(np.load(folder / "beside.npz")), np.load(folder / "matrix.npy")
    label = (beside["gain"] > 0 if model == "gain" else beside["target"]).astype(np.float32)
    count = int(beside["early"].sum()) if early else len(label)
    params = {"objective": "binary", **({"verbosity": -1} if own else settings(folder, asked))}
    categories = beside["categories"].tolist()
    return lambda: lgb.train(
        params, lgb.Dataset(matrix[:count], label[:count], categorical_feature=categories), rounds or asked.rounds
    ).num_trees()


def whole(folder: Path, asked: Asked) -> Piece:
    """Run the product's step, which fits both models twice."""
    find_step("train")  # imports do not count
    inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    store, wanted = Store(str(folder / "root")), spec(folder / "drop", asked)
    return lambda: store.open(perform("train", store=store, spec=wanted, **inputs)["uri"]).record["rounds"]


def pandas_way(folder: Path, asked: Asked) -> Piece:
    """Read the training set into a DataFrame and train one model on it, as a script does."""
    import lightgbm as lgb
    import pandas as pd

    def work() -> int:
        frame = pd.read_parquet(folder / "training.parquet")
        target = frame.pop("target")
        text = frame.select_dtypes(exclude=["number", "bool"]).columns
        frame = frame.astype(dict.fromkeys(text, "category"))
        data = lgb.Dataset(frame, target)
        return int(lgb.train({"objective": "binary", **settings(folder, asked)}, data, asked.rounds).num_trees())

    return work


def measure(asked: Asked, folder: Path, run: Run) -> tuple[list[Pair], Cost, list[Claim]]:
    """Return the pairs, the pandas way's cost, and two claims that hold at any size."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the product's commands do
    run(partial(_preparer, folder, asked), folder)
    pairs = []
    for model in MODELS:
        turns = [
            (run(partial(product, model, folder, asked), folder), run(partial(plain, model, folder, asked), folder))
            for _ in range(asked.turns)
        ]
        ours, bare = (min(costs, key=lambda cost: cost.seconds) for costs in zip(*turns, strict=True))
        pairs.append(Pair(f"the {model} model", ours, bare))
    own = run(partial(plain, "probability", folder, asked, own=True), folder)
    pairs.append(Pair("the probability model, against LightGBM's default parameters", pairs[0].ours, own))
    step = run(partial(whole, folder, asked), folder)
    bare = [run(partial(plain, model, folder, asked, early=True), folder) for model in MODELS]
    for pair, model, rounds in zip(pairs, MODELS, (step.answer["probability"], step.answer["ranker"]), strict=False):
        again = rounds != asked.rounds  # held-out rows may have asked for fewer
        bare.append(run(partial(plain, model, folder, asked, rounds=rounds), folder) if again else pair.plain)
    pairs.append(Pair(f"the step train, rounds {step.answer}", step, _sum(bare)))
    return pairs, run(partial(pandas_way, folder, asked), folder), _same(folder, asked)


def _preparer(folder: Path, asked: Asked) -> Piece:
    return partial(prepare, folder, asked)


def _sum(costs: Sequence[Cost]) -> Cost:
    return Cost(
        sum(one.seconds for one in costs), sum(one.cpu_seconds for one in costs), max(one.peak_mb for one in costs)
    )


def _same(folder: Path, asked: Asked) -> list[Claim]:
    """Bins made once, and scores kept from the fitting, are what they stand for, on the first rows of the matrix."""
    import lightgbm as lgb

    from sameworld.models.training import Rows, binned, binned_rows, fit_gain

    matrix = np.load(folder / "matrix.npy", mmap_mode="r")[:8_000].copy()
    beside = {name: values[:8_000] for name, values in np.load(folder / "beside.npz").items()}
    rows = Rows(matrix, *(beside[name] for name in ("target", "gain", "exposure", "weight")), *[beside["position"]] * 2)
    how = {"settings": settings(folder, asked), "categories": beside["categories"].tolist()}
    fit = {"stop": None, "max_rounds": 20, "patience": 1, "keep_raw": True, **how}
    alone = fit_gain(rows, **fit)
    bins = binned_rows(binned(matrix, **how), np.ones(len(matrix), np.bool_))
    shared = fit_gain(Rows(bins, *(getattr(rows, name) for name in list(rows.__dict__)[1:])), **fit)
    predicted = alone.start + np.asarray(lgb.Booster(model_str=alone.text).predict(matrix, raw_score=True))
    off = float(np.abs(predicted - alone.raw).max())
    same = alone.text == shared.text
    return [
        Claim("the model fitted from shared bins", "the same text" if same else "other text", "its own", holds=same),
        Claim("scores kept from the fitting, off the predicted", f"{off:.1g}", "at most 1e-9", holds=off <= 1e-9),
    ]


def judged(asked: Asked, folder: Path, run: Run) -> dict[str, Any]:
    """Measure and return the finding."""
    pairs, pandas, same = measure(asked, folder, run)
    step = pairs[-1].ours
    size = f"{asked.rows:,} rows × 41 features, {asked.rounds} rounds"
    claims = [pair.claim(timed=asked.timed and "default" not in pair.what) for pair in pairs]
    holds = step.peak_mb < pandas.peak_mb or not asked.timed
    claims.append(Claim("peak of the step train", f"{step.peak_mb:,.0f} MB", f"pandas: {_told(pandas)}", holds=holds))
    return finding(seed=SEED, claims=[*claims, *same], figures={"size": size})


def run(small: bool) -> dict[str, Any]:
    """Measure at a size; the small one, in this process, claims nothing of time or memory."""
    with tempfile.TemporaryDirectory(prefix="sameworld-train-") as folder:
        return judged(SIZES["small" if small else "full"], Path(folder), _here if small else _alone)


def _here(prepare: Callable[[], Piece], _: Path) -> Cost:
    work = prepare()
    started, busy = time.perf_counter(), time.process_time()
    answer = work()
    return Cost(time.perf_counter() - started, time.process_time() - busy, 0.0, answer)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure at the size asked for, and print the table or write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speed", description="Speed of training.")
    parser.add_argument("--rows", type=int, default=SIZES["full"].rows)
    parser.add_argument("--rounds", type=int, default=SIZES["full"].rounds)
    parser.add_argument("--turns", type=int, default=1, help="how often each pair is measured")
    parser.add_argument("--write", action="store_true", help="write docs/evidence/train_speed.md")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sameworld-train-") as folder:
        found = judged(Asked(asked.rows, asked.rounds, asked.turns), Path(folder), _alone)
    print(f"{found['figures']['size']}\n\n{table(found['claims'])}")
    if asked.write:
        told = f"{__doc__}\nMeasured here: {found['figures']['size']}.\n"
        text = page("train_speed", told, found, small=False, version=commit())
        (PROJECT / "docs" / "evidence" / "train_speed.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
