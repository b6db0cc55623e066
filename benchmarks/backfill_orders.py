"""Does the order of a backfill matter? The same days forward, backward, and two at a time in two processes.

A simulated shop's drop lies there whole. Its last days are run, each as the whole flow but its report, in three roots:
oldest first, newest first, and by two processes that take the next day as soon as they are free, so that steps which
days share are made at the same time. Claims: every day's run names the same fingerprints in the same steps; below the
roots lie the same artifacts with the same bytes (each is checked against its hashes); and a backfill of days that are
done makes nothing. `decide` and `promote` are left out: they depend on what was in production when they ran.
Beside it the figures say how many of the days could be judged at all: the first ones of a log cannot.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.evidence import Claim, finding
from sameworld.records import Blocked
from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import day_end, time_text
from tasks.flow import Handle, perform
from tasks.run import Call, planned

FIRST_DAY, SEED = date(2026, 3, 1), 7
AFTER_THE_REGISTRY = ("decide", "promote")
Steps = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Size:
    """How many days the drop has, how many of them are run, and how much happens in one."""

    days: int
    run: int
    requests_per_day: int

    @property
    def wanted(self) -> list[date]:
        """The days that are run, oldest first."""
        return [FIRST_DAY + timedelta(days=number) for number in range(self.days - self.run, self.days)]


SIZES = {"small": Size(days=9, run=3, requests_per_day=60), "full": Size(days=36, run=30, requests_per_day=150)}


@dataclass(frozen=True)
class Order:
    """What came of one backfill: each day's steps, each artifact's content, the days judged, and seconds."""

    steps: dict[date, Steps]
    content: dict[str, str]
    judged: int
    seconds: float


def run(small: bool) -> dict[str, Any]:
    """Run three days in each order, or thirty."""
    size = SIZES["small" if small else "full"]
    with tempfile.TemporaryDirectory(prefix="sameworld-backfills-") as folder:
        drop = Path(folder) / "drop"
        write_drop(drop, world(size))
        orders = {
            "forward": backfill(f"{folder}/forward", drop, size.wanted, processes=1),
            "backward": backfill(f"{folder}/backward", drop, size.wanted[::-1], processes=1),
            "two at a time": backfill(f"{folder}/parallel", drop, size.wanted, processes=2),
        }
        again = backfill(f"{folder}/forward", drop, size.wanted, processes=1)
    claims = [claim for name in ("backward", "two at a time") for claim in compared(name, orders)]
    claims.append(nothing_new(orders["forward"], again))
    return finding(seed=SEED, claims=claims, figures=figures({**orders, "again": again}, size))


def world(size: Size) -> WorldParameters:
    """Return the shop: purchases land within hours to a day, so that labels close within four days."""
    sizes = {"users": 150, "items": 60, "candidates": 8, "slots": 5}
    quick = {"fast_delay_days": 0.25, "slow_delay_days": 1.0, "purchase_lag_hours": 2.0, "purchase_intercept": -0.6}
    dates = {"first_day": FIRST_DAY.isoformat(), "days": size.days, "requests_per_day": size.requests_per_day}
    shares = {"window_days": 2.0, "candidates_share": 0.0}
    return WorldParameters.parse({"seed": SEED, **sizes, **quick, **dates, **shares})


def tree(drop: Path) -> dict[str, Any]:
    """Return the spec of the shop's log."""
    label = {"gains": {"click": 1.0, "purchase": 5.0}, "target": "click", "window_days": 1.0, "segments": ["x_segment"]}
    quick = {"evaluate": {"replicates": 100, "at": [5]}, "train": {"max_rounds": 60}, "decide": {"metric": "ndcg@5"}}
    return {**quick, "label": label, "backtest": {"days": 1}, "source": {"kind": "drop", "uri": str(drop)}}


def backfill(root: str, drop: Path, days: Sequence[date], *, processes: int) -> Order:
    """Run days in the order given, each taken by the first of the processes that is free."""
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        ran = list(pool.map(one_day, [root] * len(days), [drop] * len(days), days))
    seconds = time.perf_counter() - started
    steps = {day: made for day, (made, _) in zip(days, ran, strict=True)}
    return Order(steps, content(root), sum(judged for _, judged in ran), seconds)


def one_day(root: str, drop: Path, day: date) -> tuple[Steps, bool]:
    """Run a day's steps; return what each made, by its fingerprints, and whether the back-test could be judged."""
    store, spec, handles = Store(root), Spec.parse(tree(drop)), dict[str, Handle]()
    for call in planned(time_text(day_end(day))).calls:
        inputs = {name: handles[one.key] if isinstance(one, Call) else one for name, one in call.inputs.items()}
        try:
            handles[call.key] = perform(call.name, store=store, spec=spec, **inputs)
        except Blocked:  # as a run stops there; in each order it must be there
            break
    judged = "evaluate" in handles and store.open(handles["evaluate"]["uri"]).cannot is None
    return tuple((key, _named(one)) for key, one in handles.items() if key not in AFTER_THE_REGISTRY), judged


def _named(handle: Handle) -> str:
    """Return the fingerprints of what a step made."""
    uris = handle["uri"] if isinstance(handle["uri"], list) else [handle["uri"]]
    return " ".join(str(uri).rpartition("/")[2] for uri in uris)


def content(root: str) -> dict[str, str]:
    """Return the hash of every artifact's files, each file checked against its own; decisions are left out."""
    store, found = Store(root), {}
    for manifest in sorted(Path(root).glob("artifacts/*/*/manifest.json")):
        step, fingerprint = manifest.parts[-3:-1]
        artifact = store.find(step, fingerprint)
        if artifact is not None and step not in AFTER_THE_REGISTRY:
            found[f"{step}/{fingerprint}"] = artifact.verify().content_hash
    return found


def compared(name: str, orders: dict[str, Order]) -> list[Claim]:
    """Compare an order with the days run forward."""
    found, wanted = orders[name], orders["forward"]
    days = sum(found.steps[day] == steps for day, steps in wanted.steps.items())
    bytes_ = sum(found.content.get(key) == digest for key, digest in wanted.content.items())
    more = len(found.content.keys() - wanted.content.keys())
    return [
        Claim(f"{name}: days whose steps have the fingerprints of the days run forward", str(days),
              str(len(wanted.steps)), holds=found.steps == wanted.steps),
        Claim(f"{name}: artifacts with the bytes of those made forward, and others", f"{bytes_:,} and {more}",
              f"{len(wanted.content):,} and 0", holds=found.content == wanted.content),
    ]  # fmt: skip


def nothing_new(forward: Order, again: Order) -> Claim:
    """Compare the days run once more with what was there."""
    words = "days that are done, run again: artifacts made anew"
    new = len(again.content.keys() - forward.content.keys())
    return Claim(words, str(new), "0", holds=again.content == forward.content and again.steps == forward.steps)


def figures(orders: dict[str, Order], size: Size) -> dict[str, Any]:
    """Return the sizes, and what each order took."""
    made = {name: {"seconds": round(one.seconds, 1), "artifacts": len(one.content), "days_judged": one.judged}
            for name, one in orders.items()}  # fmt: skip
    return {**vars(size), "orders": made}
