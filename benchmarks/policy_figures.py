"""The logging policy's propensities against brute force, their price, and the examination that follows from them.

Propensities: lists of 2 to 6 candidates, drawn, with ties and with an outlier, at tau 0.1, 0.3 and 1 and epsilon 0,
0.02 and 0.2. Over all orders of a list, and over all its prefixes of each length, they sum to 1 within 1e-12. An item's
probability of standing at a position is within 1e-8 of the sum over all orders, each taken from the definition of
Plackett-Luce as it stands in the paper, one pick after the other.

Price, in a core's time (whatever else the machine does): the prefix propensities of a million requests (24 candidates,
8 positions) in less than 10 seconds, the marginals of 100,000 in less than 60. The small size says what a share of them
takes, and claims nothing of it.

Examination: 100,000 requests each of three closed-loop worlds with different curves, clicks as well as purchases: every
position within 10 % of the truth. Beside it stands what the plain click rates say, relative to the first position's.
The 95 % intervals of five parts of each log cover the truth as often as they should. What the step's own function
makes of one of the logs is as near. A log without swaps is refused in words, and so is LightGBM's rank_xendcg, which
would leave positions out without a word.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks._examined_worlds import SMALL, WORLDS, Examined, estimated, simulated
from benchmarks.evidence import Claim, finding
from sameworld.maths.policy import position_marginals, prefix_log_propensities, sample_orders
from sameworld.maths.position import examination_from_propensities
from sameworld.models.examination import examination_of_requests
from sameworld.records import Refused
from sameworld.spec import Spec

Floats = NDArray[np.float64]
TAUS, EPSILONS, SIZES = (0.1, 0.3, 1.0), (0.0, 0.02, 0.2), (2, 3, 4, 5, 6)
CANDIDATES, POSITIONS, PARTS = 24, 8, 5


def run(small: bool) -> dict[str, Any]:
    """Take the figures: of three worlds with 20 days of 5,000 requests each, or of a small one with two."""
    exact, wrong = _exactness(lists=2 if small else 10)
    claims = [
        Claim("all orders, all prefixes of a length: furthest sum from 1", f"{exact:.1e}", "below 1e-12",
              exact < 1e-12),
        Claim("marginals: furthest from the sum over all orders", f"{wrong:.1e}", "below 1e-8",
              wrong < 1e-8),
    ]  # fmt: skip
    seconds = _prices(share=0.02 if small else 1.0)
    worlds = {
        name: _examination(simulated(days=2 if small else 20, **parameters), small=small)
        for name, parameters in (SMALL if small else WORLDS).items()
    }
    claims += [*_price_claims(seconds, small=small), *_world_claims(worlds, small=small), *_refusals()]
    figures = {"sum off by": exact, "marginals off by": wrong, "seconds": seconds, "worlds": worlds}
    return finding(seed=11, claims=claims, figures=figures)


def _lists(count: int) -> Iterator[Floats]:
    """Yield score lists of every size: drawn ones, one with ties, one of equals, one with an outlier."""
    for size in SIZES:
        drawn = np.random.default_rng(size).normal(size=(count, size))
        yield from drawn
        yield np.repeat(drawn[0], 2)[:size]
        yield np.zeros(size)
        yield np.append(drawn[0, 1:], 30.0)


def _exactness(lists: int) -> tuple[float, float]:
    """Return the largest error of a sum over orders, and of a marginal, over lists × tau × epsilon."""
    off, wrong = [], []
    for scores, tau, epsilon in product(_lists(lists), TAUS, EPSILONS):
        size = len(scores)
        orders = np.array(list(permutations(range(size))))
        table = np.tile(scores, (len(orders), 1))
        chances = np.exp(prefix_log_propensities(table, orders, size, tau=tau, epsilon=epsilon))
        # Each prefix of length k begins (size − k)! orders.
        repeats = np.array([math.factorial(size - k) for k in range(1, size + 1)])
        off.append(np.abs((chances / repeats).sum(axis=0) - 1.0).max())
        found = position_marginals(scores[None], tau=tau, epsilon=epsilon, positions=size)[0]
        wrong.append(np.abs(found - _enumerated(scores, orders, tau, epsilon)).max())
    return float(max(off)), float(max(wrong))


def _enumerated(scores: Floats, orders: NDArray[np.int64], tau: float, epsilon: float) -> Floats:
    """Sum the probability of every order, pick by pick, into a table of item by position."""
    weight = np.exp((scores - scores.max()) / tau)[orders]
    model = np.ones(len(orders))
    for pick in range(orders.shape[1]):
        model *= weight[:, pick] / weight[:, pick:].sum(axis=1)
    chance = (1.0 - epsilon) * model + epsilon / len(orders)
    table = np.zeros((len(scores), len(scores)))
    np.add.at(table, (orders, np.arange(len(scores))), chance[:, None])
    return table


def _prices(share: float) -> dict[str, float]:
    """Return seconds by what was computed, for this share of the full sizes."""
    many, some = int(1_000_000 * share), int(100_000 * share)
    scores = np.random.default_rng(1).normal(size=(many, CANDIDATES))
    orders, _ = sample_orders(scores, tau=0.3, epsilon=0.02, seed=1)

    def marginals(tau: float) -> Callable[[], object]:
        return lambda: position_marginals(scores[:some], tau=tau, epsilon=0.02, positions=POSITIONS)

    def prefixes() -> object:
        return prefix_log_propensities(scores, orders, POSITIONS, tau=0.3, epsilon=0.02)

    return {
        f"prefix propensities of {many:,} requests": _seconds(prefixes),
        **{f"marginals of {some:,} requests, tau {tau:g}": _seconds(marginals(tau)) for tau in (0.3, 0.1)},
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return round(time.process_time() - started, 2)


def _price_claims(seconds: dict[str, float], *, small: bool) -> list[Claim]:
    most = {name: 10.0 if name.startswith("prefix") else 60.0 for name in seconds}
    return [
        Claim(f"{name}, {CANDIDATES} candidates, {POSITIONS} positions", f"{taken:.1f} s",
              "not claimed at this size" if small else f"less than {most[name]:.0f} s", small or taken < most[name])
        for name, taken in seconds.items()
    ]  # fmt: skip


def _examination(world: Examined, *, small: bool) -> dict[str, Any]:
    """Return what clicks and purchases say of a world's positions, beside the truth."""
    marginals, found = world.marginals(), dict[str, Any]()
    part = world.rows["request_id"].rle_id().to_numpy() % PARTS
    for kind in ("click", "purchase"):
        estimates = estimated(world, kind, marginals)
        position, hit = world.rows["position"].to_numpy(), world.rows[kind].to_numpy()
        count = np.bincount(position, weights=hit)[1:]
        parts = [estimated(world, kind, marginals, part == number) for number in range(PARTS)]
        found[kind] = {
            "truth": world.theta.tolist(),
            "found": [one.as_record() for one in estimates],
            "fewest": int(count.min()),
            "off": _worst([one.value for one in estimates], world.theta),
            "rates off": _worst((count / count[0]).tolist(), world.theta),
            "covered": sum(
                bool(one.low <= theta <= one.high)
                for some in parts
                for one, theta in zip(some[1:], world.theta[1:], strict=True)
            ),
            "intervals": PARTS * (len(world.theta) - 1),
        }
    return {**found, "product": _of_product(world) if small or len(world.theta) < 8 else None}


def _worst(found: list[float], theta: Floats) -> float:
    return float(np.abs(np.asarray(found) / theta - 1.0).max())


def _of_product(world: Examined) -> float:
    """Return how far from the truth the product's own function is, at most."""
    found = examination_of_requests(world.requests.lazy(), world.gained("click"), seed=1) or []
    return _worst([one.value for one in found], world.theta)


def _world_claims(worlds: dict[str, Any], *, small: bool) -> list[Claim]:
    close, requests = (0.2, "10,000") if small else (0.1, "100,000")
    claims = [
        Claim(f"examination of {len(one['truth'])} positions, {name}, {requests} requests, {kind}s "
              f"({one['fewest']:,} at the position with the fewest): furthest from the truth",
              f"{one['off']:.1%}", f"within {close:.0%}; plain rates {one['rates off']:.1%}", one["off"] <= close)
        for name, world in worlds.items()
        for kind, one in ((kind, world[kind]) for kind in ("click", "purchase"))
    ]  # fmt: skip
    covered, count = (
        sum(world[kind][what] for world in worlds.values() for kind in ("click", "purchase"))
        for what in ("covered", "intervals")
    )
    # Purchases follow clicks, so that half of the intervals say something of their own.
    sound = binomtest(covered // 2, count // 2, 0.95, alternative="less").pvalue > 0.001
    claims.append(Claim("95 % intervals, of fifths of the logs, that cover the truth", f"{covered} of {count}",
                        "as many as chance allows", sound))  # fmt: skip
    for name, world in worlds.items():
        if world["product"] is not None:
            claims.append(Claim(f"the same from the product's own function, {name}, clicks; it takes as many requests "
                                "as give each position 3,000 of them", f"{world['product']:.1%}",
                                f"within {close:.0%}", world["product"] <= close))  # fmt: skip
    return claims


def _refusals() -> list[Claim]:
    ones, label = np.ones(40), {"gains": {"click": 1.0}, "target": "click"}
    asked: dict[str, tuple[Callable[[], object], str]] = {
        "a log without swaps": (
            lambda: examination_from_propensities(np.tile([1, 2], 20), ones, ones, user_codes=np.arange(40), seed=1),
            "examination cannot be told from relevance",
        ),
        "rank_xendcg with positions": (
            lambda: Spec.parse({"label": label, "train": {"order": "rank_xendcg", "position": "estimated"}}),
            "rank_xendcg leaves positions out",
        ),
    }
    told = {name: _refusal(call) for name, (call, _) in asked.items()}
    return [Claim(f"{name} is refused", told[name], f"says {words!r}", words in told[name])
            for name, (_, words) in asked.items()]  # fmt: skip


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except Refused as refusal:
        return str(refusal)
    return "not refused"
