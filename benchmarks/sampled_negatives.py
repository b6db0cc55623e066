"""Negatives sampled at a rate: do the probabilities stay those of the whole log?

Closed-loop worlds, drawn as those of ``random_worlds`` but smaller, with clicks or purchases as the target. The product
trains on each log with all negatives and with 30 % and 10 % of them (``train.negative_rate``); the steps before
training are shared. Each bundle then says how likely the target is for the next day's candidates, and is compared with
the world's truth: the sum of its probabilities over the true sum, over all candidates and over those that were shown;
its normalised entropy under the true probabilities; and the rank correlation with them.

Beside the 10 % stands what goes wrong. ``uncorrected``: the same features and likelihood, a tenth of the negatives
drawn evenly, each counting once. ``formula``: that model's odds times the rate (He et al., "Practical lessons from
predicting clicks on ads at Facebook", ADKDD 2014), which is right where every row is looked at. Under examination and
delay it is not: a negative far down says little, and what is left of the log disagrees with the exposure that the
likelihood is told. Where more positives are left than the exposure allows (clicks, with a tenth of the negatives)
that fit saturates: every probability is one, whatever the formula then does. So the product keeps negatives by what
they are worth, and weighs.

Claims: sampled, both sums stay within 5 % of the whole log's at 30 %, and within 10 % at 10 %, where some thousand
negatives are left; the normalised entropy within 0.01 and 0.02; without correction the sum is more than 1.5 times the
truth. At the small size, one world of a tenth of the rows: within 15 %.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy
from scipy.stats import spearmanr

from benchmarks.evidence import Claim, finding
from benchmarks.random_worlds import Drawn, drawn
from sameworld.maths.calibration import correct_for_negative_rate
from sameworld.models.bundle import load_bundle
from sameworld.models.features import feature_matrix
from sameworld.models.item_history import history_features, learn_history
from sameworld.models.rank import rank
from sameworld.models.training import Rows, fit_probability
from sameworld.models.training_table import TrainingTable, examined, exposed, request_sizes
from sameworld.sources.closed_loop import DayLog, World, WorldParameters
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store, artifact_at
from sameworld.store.times import day_end, time_text
from tasks.flow import perform
from tasks.run import Call, planned
from tasks.train import MAX_WEIGHT, SPREAD

Floats = NDArray[np.float64]
RATES = (1.0, 0.3, 0.1)
SIZES = {"days": 16, "candidates": 20, "slots": 8, "users": 1500, "items": 200, "window_days": 3.0}
SEEDS, A_DAY = (203, 204, 205, 207), 700  # of two worlds the target is the click, of two the purchase
SMALL = {"days": 10, "requests_per_day": 250, "candidates": 10, "slots": 5, "users": 200, "items": 60}
WHO = ("all candidates", "those shown")


@dataclass(frozen=True)
class Trained:
    """A root, what was handed on up to ``assemble``, and what training made of it."""

    store: Store
    spec: Spec
    examples: Artifact
    models: Artifact
    bundle: Artifact


def run(small: bool) -> dict[str, Any]:
    """Compare the rates in one small world, or in four."""
    worlds = [drawn(202, **SMALL)] if small else [drawn(seed, **SIZES, requests_per_day=A_DAY) for seed in SEEDS]
    figures = {f"world {world.parameters.seed}, {world.target}": _one_world(world) for world in worlds}
    claims = [claim for name, found in figures.items() for claim in _claims(name, found, small=small)]
    return finding(seed=worlds[0].parameters.seed, claims=claims, figures=figures)


def _one_world(world: Drawn) -> dict[str, dict[str, float]]:
    """Return what each way of training says of the day after."""
    p = world.parameters
    whole = World(WorldParameters(**{**vars(p), "days": p.days + 1}))
    after = [whole.simulate_day(day) for day in range(p.days + 1)][-1]
    true = after.truth.click if world.target == "click" else after.truth.target
    with tempfile.TemporaryDirectory() as folder:
        drop = Path(folder) / "drop"
        write_drop(drop, p)
        made = [_trained(_spec(drop, world, rate), Store(f"{folder}/root"), world) for rate in RATES]
        told = {f"rate {rate:g}": _of_product(one, after) for rate, one in zip(RATES, made, strict=True)}
        uncorrected = _uncorrected(made[-1], RATES[-1], after)
    told["uncorrected"], told["formula"] = uncorrected, correct_for_negative_rate(uncorrected, RATES[-1])
    return {name: _judged(probability.reshape(true.shape), true, after.order) for name, probability in told.items()}


def _spec(drop: Path, world: Drawn, rate: float) -> Spec:
    p = world.parameters
    label = {
        "gains": {"click": p.click_gain, "purchase": p.purchase_gain}, "target": world.target,
        "window_days": p.window_days, "segments": ["x_segment"],
    }  # fmt: skip
    source = {"kind": "drop", "uri": str(drop)}
    return Spec.parse({"source": source, "label": label, "train": {"negative_rate": rate}})


def _trained(spec: Spec, store: Store, world: Drawn) -> Trained:
    """Make the bundle of the last day's cutoff; what an earlier rate made up to ``assemble`` is reused."""
    cutoff = day_end(world.parameters.first_day + timedelta(days=world.parameters.days - 1))
    steps: dict[str, Any] = {}
    for call in planned(time_text(cutoff)).only("calibrate"):
        if not call.name.startswith("validate."):
            given = {name: steps[one.key] if isinstance(one, Call) else one for name, one in call.inputs.items()}
            steps[call.key] = perform(call.name, store=store, spec=spec, **given)
    opened = (artifact_at(steps[name]["uri"]) for name in ("assemble", "train", "calibrate"))
    return Trained(store, spec, *opened)


def _of_product(made: Trained, after: DayLog) -> Floats:
    return rank(after.features.frame(), load_bundle(made.bundle))["probability"].to_numpy()


def _uncorrected(made: Trained, rate: float, after: DayLog) -> Floats:
    """Fit as the product does, on a sample of negatives that count once each, and predict the day after."""
    kinds = sorted(made.spec.label.gains)
    table = TrainingTable.read(made.examples, made.store, room=len(kinds))
    estimates = made.models.record["examination"]
    theta = np.ones(1) if "cannot" in estimates else np.clip([one["value"] for one in estimates], 0.01, 1.0)
    seen = examined(table, theta)
    beside, history = learn_history(
        made.examples, made.store, kinds=kinds, item=table.item, items=table.items, examination=seen
    )
    table.matrix[:, len(table.features) :] = beside
    draw = np.random.default_rng(made.spec.train.seed).random(len(table))
    kept = (table.completeness > 0) & ((table.target > 0) | (draw < rate))
    features = (*table.features, *history_features(kinds))
    rows = Rows(
        matrix=table.matrix[kept], target=table.target[kept], gain=table.gain[kept],
        exposure=exposed(seen, table.completeness)[kept],
        weight=np.minimum(1.0 / np.maximum(table.completeness, 1e-3), MAX_WEIGHT)[kept],
        sizes=request_sizes(table.request[kept]), position=table.position[kept],
    )  # fmt: skip
    train = made.spec.train
    settings = {
        "learning_rate": train.learning_rate, "num_leaves": train.leaves, "min_data_in_leaf": train.min_leaf_rows,
        "min_sum_hessian_in_leaf": train.min_leaf_positives, "seed": train.seed, **SPREAD,
    }  # fmt: skip
    categories = [place for place, feature in enumerate(features) if feature.kind == "category"]
    rounds = int(made.models.record["rounds"]["probability"])
    fitted = fit_probability(rows, stop=None, settings=settings, max_rounds=rounds, patience=1, categories=categories)
    return _predicted(fitted.text, fitted.start, feature_matrix(history.added_to(after.features.frame()), features))


def _predicted(text: str, start: float, matrix: NDArray[np.float32]) -> Floats:
    import lightgbm as lgb

    raw = lgb.Booster(model_str=text).predict(matrix, raw_score=True)
    return np.asarray(expit(start + np.asarray(raw, np.float64)))


def _judged(told: Floats, true: Floats, order: NDArray[np.int64]) -> dict[str, float]:
    """Return the ratio of the sums, the entropy under the truth and the rank correlation, of all and of the shown."""
    found = {}
    for who, chosen in zip(WHO, (slice(None), None), strict=True):
        p, t = (values[chosen] if chosen else np.take_along_axis(values, order, axis=1) for values in (told, true))
        found[f"ratio, {who}"] = float(p.sum() / t.sum())
        found[f"entropy, {who}"] = _entropy(p, t) / _entropy(np.full(t.shape, t.mean()), t)
        same = np.ptp(p) == 0.0  # a model whose probabilities are all alike orders nothing
        found[f"rank, {who}"] = 0.0 if same else float(spearmanr(p.ravel(), t.ravel()).statistic)
    return found


def _entropy(p: Floats, t: Floats) -> float:
    """Return the mean logloss of p where t is the probability of the outcome."""
    return float(-np.mean(xlogy(t, p) + xlogy(1.0 - t, 1.0 - p)))


def _claims(name: str, found: dict[str, dict[str, float]], *, small: bool) -> list[Claim]:
    whole, claims = found["rate 1"], list[Claim]()
    for rate, close, worse in ((0.3, 0.05, 0.01), (0.1, 0.1, 0.02)):
        one, limit = found[f"rate {rate:g}"], 0.15 if small else close
        off = max(abs(one[f"ratio, {who}"] / whole[f"ratio, {who}"] - 1.0) for who in WHO)
        claims.append(Claim(f"{name}: {rate:.0%} of the negatives: {_words(one)}",
                            f"sums {off:.1%} from those of all negatives", f"within {limit:.0%}; {_words(whole)}",
                            off <= limit))  # fmt: skip
        loss = one["entropy, all candidates"] - whole["entropy, all candidates"]
        claims.append(Claim(f"{name}: {rate:.0%} of the negatives: normalised entropy", f"{loss:+.4f}",
                            f"at most {worse:g} more than with all", small or loss <= worse))  # fmt: skip
    wrong = found["uncorrected"]
    claims.append(Claim(f"{name}: 10 %, uncorrected: {_words(wrong)}", f"{wrong['ratio, all candidates']:.2f}",
                        f"more than 1.5; by formula: {_words(found['formula'])}",
                        wrong["ratio, all candidates"] > 1.5))  # fmt: skip
    return claims


def _words(one: dict[str, float]) -> str:
    ratio, shown = (one[f"ratio, {who}"] for who in WHO)
    entropy, order = one["entropy, all candidates"], one["rank, all candidates"]
    return f"{ratio:.3f} of the true sum, of the shown {shown:.3f}; entropy {entropy:.3f}, rank {order:.3f}"
