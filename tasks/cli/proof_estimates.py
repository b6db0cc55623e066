"""From figures by seed to estimates, paired differences and claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from tasks.cli.proof_failures import Found, metric_of
from tasks.cli.proof_worlds import ALL, AUC, DELAY, DETERMINISTIC, EXPLORING, LOOP, NULLS, Proof

WITHIN_BACKTEST, WITHIN_ORACLE, POINTS = 0.01, 0.02, 0.04
ABOVE, BELOW = "the interval is above 0", "the interval is below 0"
Estimate = dict[str, Any]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds with its 95 % interval by Student's t; a "cannot" for fewer than two seeds.

    >>> {part: round(value, 3) for part, value in estimate([1.0, 2.0, 3.0]).items()}
    {'value': 2.0, 'low': -0.484, 'high': 4.484}
    """
    if len(values) < 2:
        return {"cannot": f"an interval over seeds needs two worlds that have this figure, and there are {len(values)}"}
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(t.ppf(0.975, len(values) - 1)) * error
    return {"value": mean, "low": mean - reach, "high": mean + reach}


def paired(worlds: Sequence[Found], one: str, other: str) -> Estimate:
    """Return the difference of two figures, world by world: worlds that lack either are left out."""
    both = [found.figures for found in worlds if one in found.figures and other in found.figures]
    return estimate([figures[one] - figures[other] for figures in both])


@dataclass(frozen=True)
class Wanted:
    """A claim about a paired difference: ``one`` minus ``other`` meets ``rule``."""

    what: str
    one: str
    other: str
    wanted: str
    rule: Callable[[Mapping[str, float]], bool]


def _above(it: Mapping[str, float]) -> bool:
    return it["low"] > 0


def _below(it: Mapping[str, float]) -> bool:
    return it["high"] < 0


def _within(reach: float) -> Callable[[Mapping[str, float]], bool]:
    return lambda it: -reach <= it["low"] and it["high"] <= reach


_MORE = Wanted("reward share, fixed minus broken", "fixed.share", "broken.share", ABOVE, _above)
_WORSE = Wanted("broken: production minus the back-test", "broken.truth", "broken.offline", ABOVE, _above)
_BETTER = Wanted("production, fixed minus broken", "fixed.truth", "broken.truth", BELOW, _below)
_PROMISE = ("fixed: production minus the back-test", "fixed.truth", "fixed.offline")
_KEPT = Wanted(*_PROMISE, f"the interval is within {WITHIN_BACKTEST}", _within(WITHIN_BACKTEST))
_CLAIMS: dict[str, tuple[Wanted, ...]] = {
    LOOP: (
        Wanted("broken: offline, late minus early", "broken.offline", "broken.offline early", ABOVE, _above),
        Wanted("broken: truth, late minus early", "broken.truth", "broken.truth early", BELOW, _below),
        Wanted("truth late, fixed minus broken", "fixed.truth", "broken.truth", ABOVE, _above),
        _MORE,
    ),
    DELAY: (_WORSE, _KEPT, _BETTER),
    NULLS: (
        _WORSE,
        Wanted("fixed: production minus what the oracle's nulls give", "fixed.truth", "oracle.truth",
               f"the interval is within {WITHIN_ORACLE}", _within(WITHIN_ORACLE)),
        _BETTER,
    ),
    ALL: (
        _WORSE,
        Wanted("reward share as served, exploration paid for, fixed minus broken", "fixed.share", "broken.share",
               f"the interval is above {POINTS}", lambda it: it["low"] >= POINTS),
    ),
}  # fmt: skip
# What stands beside the claims without being one.
_BESIDE: dict[str, tuple[tuple[str, str, str], ...]] = {
    LOOP: (("fixed: truth, late minus early", "fixed.truth", "fixed.truth early"),),
    DELAY: (("fixed: production of the next bundle minus the back-test", "fixed.truth next", "fixed.offline"),),
    NULLS: (_PROMISE,),
    ALL: (_PROMISE,),
}
SENTENCES = {
    LOOP: "A model that learns from its own choices: what it measures on its own log rises, what users get does not.",
    DELAY: "What is still on its way counts as negative: the back-test agrees with itself, not with production.",
    NULLS: "Trained and judged on features that the warehouse has completed since, served with those that were there.",
    ALL: "All three at once, beside the product on equal worlds with equal luck.",
}


def failure_record(proof: Proof, worlds: Sequence[Found]) -> dict[str, Any]:
    """Return one failure as ``sameworld prove --json`` has it: estimates over seeds, claims, and points by day."""
    name = proof.name
    wanted, beside = _CLAIMS[name], _BESIDE[name]
    differences = {one.what: paired(worlds, one.one, one.other) for one in wanted}
    claims = [_claim(one, differences[one.what]) for one in wanted]
    return {
        "name": name,
        "says": SENTENCES[name],
        "seeds": [found.seed for found in worlds],
        "metric": {"offline": metric_of(name), "truth": "true ndcg@10" if metric_of(name) == AUC else metric_of(name)},
        **{who: _arm(worlds, who) for who in ("broken", "fixed")},
        "reward_share": {who: _over(worlds, f"{who}.share") for who in ("broken", "fixed")} | {"oracle": 1.0},
        "paired": differences | {what: paired(worlds, one, other) for what, one, other in beside},
        **({"oracle": {"truth": _over(worlds, "oracle.truth")}} if name == NULLS else {}),
        "claims": claims,
        "days": {
            who: {what: _by_day(worlds, who, what) for what in ("offline", "truth")} for who in ("broken", "fixed")
        },
        "world": _parameters(proof),
        "serving": {"broken": DETERMINISTIC if name in (LOOP, ALL) else EXPLORING, "fixed": EXPLORING},
    }


def _over(worlds: Sequence[Found], figure: str) -> Estimate:
    return estimate([found.figures[figure] for found in worlds if figure in found.figures])


def _arm(worlds: Sequence[Found], who: str) -> dict[str, Any]:
    arm: dict[str, Any] = {what: _over(worlds, f"{who}.{what}") for what in ("offline", "truth")}
    if any(f"{who}.truth early" in found.figures for found in worlds):
        arm["early"] = {what: _over(worlds, f"{who}.{what} early") for what in ("offline", "truth")}
    return arm


def _claim(wanted: Wanted, difference: Estimate) -> dict[str, Any]:
    known = "value" in difference
    return {
        "what": wanted.what,
        "found": difference,
        "wanted": wanted.wanted,
        "holds": wanted.rule(difference) if known else {"cannot": difference["cannot"]},
    }


def _by_day(worlds: Sequence[Found], who: str, what: str) -> list[dict[str, Any]]:
    by_day: dict[int, list[float]] = {}
    for found in worlds:
        for day, value in found.days[who][what].items():
            by_day.setdefault(day, []).append(value)
    return [{"day": day, "mean": float(np.mean(by_day[day])), "seeds": len(by_day[day])} for day in sorted(by_day)]


def _parameters(proof: Proof) -> dict[str, Any]:
    whole, apart = vars(proof.of_seed(0)), ("seed", "first_day", "examination", *EXPLORING)
    return {name: value for name, value in whole.items() if name not in apart}
