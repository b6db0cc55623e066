"""How far do retries and a robot lead a model astray, and how much of that does the rule for repeats take back?

Each world is a closed loop of its own, served by a hand-made policy with exploration. Its drop is written anew with
dirt that real logs have: a sixth of the requests are shown one to three times more, seconds apart, and all that came
of such a request falls to one of its copies at random; and one user makes three tenths of all requests, and nothing
ever comes of them. From the same log the product makes a bundle under each ``repeats.rule``, and one more from the
drop as it was before (clean). The next day's candidates, real users' only, are then ranked and predicted:

- calibration: the sum of the probabilities over all candidates over the true sum; what counts is how far its logarithm
  is from the clean log's, so that only what the dirt does is seen;
- order: expected gain of the top slots under true relevance and examination, as a share of the oracle's.

No rule looks at a label, so none can tell which copy the outcome would have fallen to: of n copies one has it, and
each weighs 1/n; what is left of the bias is that. Claims: the rules count what was planted exactly; ``weigh`` and
``leave_out`` come nearer to the clean log than ``keep`` in every world, and on average take back over half of the bias;
on average their order is no worse than that of ``keep`` by more than .01. At the small size (two worlds, two seeds
each) the limit of 50 requests a day still leaves the robot a fifth of the weight: there it is over a third of the bias,
and the order no worse by more than .02.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._planted_repeats import Planted, plant_repeats
from benchmarks.evidence import Claim, finding
from sameworld.models.bundle import load_bundle
from sameworld.models.rank import rank
from sameworld.sources.closed_loop import DayLog, World, WorldParameters
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from sameworld.store.times import day_end, time_text
from tasks.flow import perform
from tasks.run import Call, planned

Floats = NDArray[np.float64]
SEEDS_SMALL, SEEDS_FULL = (21, 22), (21, 22, 23, 24)
RULES = ("keep", "weigh", "leave_out")
RETRIED, BOT_SHARE = 1 / 6, 0.3
LOST_ORDER = {"small": 0.02, "full": 0.01}  # the order of one small world is uncertain by about as much
WORLDS: dict[str, dict[str, Any]] = {
    "shop": {"users": 400, "items": 120, "candidates": 10, "slots": 5},
    "feed": {"users": 300, "items": 200, "candidates": 20, "slots": 8, "churn": 0.03, "examination_exponent": 0.8},
}
TRAIN = {"max_rounds": 150, "leaves": 7}  # dirt moves the level, not the shape: less than usual does
SMALL, FULL = {"days": 7, "requests_per_day": 200}, {"days": 21, "requests_per_day": 600}


def run(small: bool) -> dict[str, Any]:
    """Run two worlds, with two seeds each or with four."""
    seeds, size = (SEEDS_SMALL, SMALL) if small else (SEEDS_FULL, FULL)
    rules = RULES[:2] if small else RULES
    figures = {
        f"{name} {seed}": one_world(WorldParameters(seed=seed, **{**WORLDS[name], **size}, **_QUICK), rules)
        for name in WORLDS
        for seed in seeds
    }
    claims = _claims(figures, rules, left=2 / 3 if small else 1 / 2, lost=LOST_ORDER["small" if small else "full"])
    return finding(seed=seeds[0], claims=claims, figures=figures)


_QUICK: dict[str, Any] = {
    **{"window_days": 1.0, "fast_delay_days": 0.1, "slow_delay_days": 0.3, "click_lag_hours": 0.3},
    **{"candidates_share": 0.0, "propensity_share": 0.0},
}


def one_world(world: WorldParameters, rules: tuple[str, ...]) -> dict[str, Any]:
    """Return calibration and order of the day after, by rule and for the clean log; and what was counted."""
    with tempfile.TemporaryDirectory() as folder:
        clean, dirty = Path(folder) / "clean", Path(folder) / "dirty"
        write_drop(clean, world)
        planted = plant_repeats(clean, dirty, seed=world.seed, retried=RETRIED, bot_share=BOT_SHARE)
        after = _day_after(world)
        found, counted = {"clean": _judge(_made(clean, world, "weigh")["calibrate"], after)}, {}
        for rule in rules:
            made = _made(dirty, world, rule)
            found[rule] = _judge(made["calibrate"], after)
            counted = artifact_at(made["find_repeats"]["uri"]).record
    names = ("requests", "rows", "clusters", "clustered_requests", "contradictory_share", "bot_share", "bot_requests")
    wanted = _planted(planted)
    return {"found": found, "counted": {name: counted[name] for name in names}, "planted": wanted}


def _planted(planted: Planted) -> dict[str, int]:
    copies = [len(cluster) for cluster in planted.clusters]
    return {"clusters": len(copies), "clustered_requests": sum(copies), "bot_requests": len(planted.bot)}


def _made(drop: Path, world: WorldParameters, rule: str) -> dict[str, Any]:
    store = Store(f"{drop}-root")
    label = {"gains": {"click": 1.0, "purchase": 5.0}, "target": "click", "window_days": world.window_days}
    source = {"kind": "drop", "uri": str(drop)}
    spec = Spec.parse({"source": source, "label": label, "repeats": {"rule": rule}, "train": TRAIN})
    cutoff = day_end(world.first_day + timedelta(days=world.days - 1 + world.tail_days))
    steps: dict[str, Any] = {}
    for call in planned(time_text(cutoff)).only("calibrate"):
        if not call.name.startswith("validate."):
            given = {n: steps[v.key] if isinstance(v, Call) else v for n, v in call.inputs.items()}
            steps[call.key] = perform(call.name, store=store, spec=spec, **given)
    return steps


def _day_after(p: WorldParameters) -> DayLog:
    whole = World(WorldParameters(**{**vars(p), "days": p.days + 1}))
    for day in range(p.days):
        whole.simulate_day(day)
    return whole.simulate_day(p.days)


def _judge(bundle: dict[str, Any], after: DayLog) -> dict[str, float]:
    ranked = rank(after.features.frame(), load_bundle(artifact_at(bundle["uri"])))
    score = ranked["score"].to_numpy().reshape(after.features.shape)
    order = after.truth.reward_share(np.argsort(-score, axis=1, kind="stable"))
    return {"calibration": float(ranked["probability"].sum() / after.truth.click.sum()), "order": float(order)}


def _off(one: dict[str, Any], rule: str) -> float:
    """Return how far a rule's calibration is from the clean log's, as a logarithm."""
    return abs(float(np.log(one["found"][rule]["calibration"] / one["found"]["clean"]["calibration"])))


def _claims(figures: dict[str, Any], rules: tuple[str, ...], *, left: float, lost: float) -> list[Claim]:
    claims = []
    for name, one in figures.items():
        counted = {key: one["counted"][key] for key in one["planted"]}
        claims.append(Claim(f"{name}: repeats and robot counted", f"{counted}", f"planted: {one['planted']}",
                            counted == one["planted"]))  # fmt: skip
    for rule in rules[1:]:
        claims += [_nearer(name, one, rule) for name, one in figures.items()]
        claims += _on_average(list(figures.values()), rule, left=left, lost=lost)
    return claims


def _nearer(name: str, one: dict[str, Any], rule: str) -> Claim:
    off, kept = _off(one, rule), _off(one, "keep")
    return Claim(f"{name}: {rule}: log of calibration, off the clean log's by", f"{off:.3f}", f"keep: {kept:.3f}",
                 off < kept)  # fmt: skip


def _on_average(found: list[dict[str, Any]], rule: str, *, left: float, lost: float) -> list[Claim]:
    off, kept = (float(np.mean([_off(one, each) for one in found])) for each in (rule, "keep"))
    order, before = (float(np.mean([one["found"][each]["order"] for one in found])) for each in (rule, "keep"))
    clean = float(np.mean([one["found"]["clean"]["order"] for one in found]))
    return [
        Claim(f"{len(found)} worlds: {rule}: mean of that", f"{off:.3f}", f"under {left:.2f} of keep's {kept:.3f}",
              off < left * kept),
        Claim(f"{len(found)} worlds: {rule}: mean share of the oracle's gain", f"{order:.3f}",
              f"keep: {before:.3f}, clean: {clean:.3f}; at most {lost:g} less", order >= before - lost),
    ]  # fmt: skip
