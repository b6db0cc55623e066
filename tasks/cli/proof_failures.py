"""The failures of the proof in the world of one seed: both arms' figures, and their points by day."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.cli.proof_arms import Arm, Blind, Unaware, run_arm
from tasks.cli.proof_oracle import production_of_oracle
from tasks.cli.proof_product import Product, product_in
from tasks.cli.proof_shop import Shop
from tasks.cli.proof_worlds import ALL, AUC, DELAY, LOOP, NE, NULLS, SIZES, Course, Proof

BLIND = {
    LOOP: Blind(loop=True),
    DELAY: Blind(delay=True),
    NULLS: Blind(nulls=True),
    ALL: Blind(loop=True, delay=True, nulls=True),
}


@dataclass(frozen=True)
class Found:
    """What one world showed: figures by name, and by arm what was said and what was true on each day."""

    name: str
    seed: int
    figures: dict[str, float]
    days: dict[str, dict[str, dict[int, float]]]


def metric_of(name: str) -> str:
    """Return the offline metric that a failure is about."""
    return AUC if name == LOOP else NE


def target_of(name: str) -> str:
    """Return the outcome that a failure's world is about: where it is not late, clicks alone count."""
    return "purchase" if name in (DELAY, ALL) else "click"


def one_world(name: str, seed: int, size: str) -> Found:
    """Run both arms of a failure in the world of a seed, at the size of a name; equal worlds, equal luck."""
    proof = SIZES[size].proof(name)
    course, blind = proof.course, BLIND[name]
    asked = {"target": target_of(name), "metric": metric_of(name)}
    shop = Shop(proof.of_seed(seed, exploring=not blind.loop))
    broken = run_arm(course, shop, Unaware(shop, course, blind, asked["target"]), **asked)
    with tempfile.TemporaryDirectory(prefix="sameworld-prove-") as folder:
        product = product_in(Path(folder), proof.of_seed(seed), course, target=asked["target"])
        fixed = run_arm(course, product.shop, product, **asked)
        beside = _oracle_beside(proof, fixed, product) if name == NULLS else {}
    arms = {"broken": broken, "fixed": fixed}
    figures = {
        f"{who}.{what}": value
        for who, arm in arms.items()
        for what, value in _figures(name, arm, course).items()
        if value is not None
    }
    days = {who: {"offline": arm.offline, "truth": arm.truth} for who, arm in arms.items()}
    return Found(name, seed, figures | beside, days)


def _figures(name: str, arm: Arm, course: Course) -> dict[str, float | None]:
    share: dict[str, float | None] = {"share": arm.share(course.ships[0])}
    if name == LOOP:
        return share | {
            "offline": arm.mean("offline", course.late),
            "truth": arm.mean("truth", course.late),
            "offline early": arm.mean("offline", course.early),
            "truth early": arm.mean("truth", course.early),
        }
    known = [ship for ship in course.graded if ship in arm.offline and ship in arm.truth]
    successors = [arm.said_at[ship] for ship in known]
    return share | {
        "offline": arm.mean("offline", known),
        "truth": arm.mean("truth", known),
        "truth next": arm.mean("truth", successors),
    }


def _oracle_beside(proof: Proof, fixed: Arm, product: Product) -> dict[str, float]:
    """Return what a model trained under the world's own law of nulls has on the rows that the product served."""
    course = proof.course
    known = [ship for ship in course.graded if ship in fixed.offline and ship in fixed.truth]
    until = [min((later for later in course.ships if later > ship), default=course.days) for ship in known]
    found = [production_of_oracle(product, ship, end) for ship, end in zip(known, until, strict=True)]
    return {"oracle.truth": float(np.mean(found))} if found else {}
