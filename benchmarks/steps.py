"""Speed and memory of the product's table steps, each beside the floor of reading and writing the same columns.

``python -m benchmarks.steps --rows 1000000`` prints the figures; ``--write`` writes them to ``docs/benchmarks.md``.
Every piece of work has a process of its own, so its peak memory is its own; a floor is measured right after its step.
"""

from __future__ import annotations

import argparse
import importlib
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks._floors import FLOORS, OTHERS, Piece, Place
from benchmarks.big_drop import FIRST, VIEW, VIEW_COLUMN, Size, write_drop
from benchmarks.evidence import PROJECT, Claim, commit, finding
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import day_end, time_text
from tasks.flow import find_step, perform

if TYPE_CHECKING:
    from tasks.run import Call

PAGE = PROJECT / "docs" / "benchmarks.md"
SMALL, SIZES = 200_000, (1_000_000, 3_000_000, 10_000_000)
MOST = {"ingest": 2.0, "validate.check_log": 1.3, "label": 2.5, "assemble": 2.0}  # times the floor, at 10 million
MOST_MB = 1_536
MOST_NEXT_DAY = 1 / 3  # of the first run's seconds, all table steps together
MOST_GROWTH = 1.05
DAYS = 30


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost in a process of its own, imports aside from the seconds; its answer."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    answer: Any = None


@dataclass(frozen=True)
class Figure:
    """A step's cost, its floor's, another way's where there is one, and its seconds the day after."""

    step: str
    rows: int
    cost: Cost
    floor: Cost
    other: Cost | None
    next_day_seconds: float

    @property
    def ratio(self) -> float:
        """How many times its floor a step takes."""
        return self.cost.seconds / self.floor.seconds

    @property
    def cpu_ratio(self) -> float:
        """The same in processor seconds, which a busy machine disturbs less."""
        return self.cost.cpu_seconds / max(self.floor.cpu_seconds, 1e-3)


def measure(rows: int, *, seed: int = 1, folder: Path) -> list[Figure]:
    """Write a drop of so many impressions in thirty days, and a day more; run the table steps on both last days.

    folder : where some 700 bytes an impression find room; left as they are
    """
    _alone(partial(_drop_writer, folder / "drop", Size(rows, DAYS, extra_days=1), seed), folder)
    place, costs, floors, others = Place(folder, DAYS, {}), {}, {}, {}
    for call in _calls(DAYS):
        costs[call.key] = _step(call, place)
        floors[call.key] = _alone(partial(FLOORS[call.key], place), folder)
        _, prepare, most = OTHERS.get(call.key, ("", None, 0))
        others[call.key] = _alone(partial(prepare, place), folder) if prepare and rows <= most else None
    later = Place(folder, DAYS + 1, {})
    again = {call.key: _step(call, later) for call in _calls(DAYS + 1)}
    return [Figure(key, rows, cost, floors[key], others[key], again[key].seconds) for key, cost in costs.items()]


def _calls(days: int) -> list[Call]:
    """Return the product's own plan up to the training set, as far as there is a floor."""
    from tasks.run import planned  # imports what no piece of work needs

    plan = planned(time_text(day_end(FIRST + timedelta(days=days - 1))))
    return [call for call in plan.only("assemble") if call.key in FLOORS]


def _step(call: Call, place: Place) -> Cost:
    """Run a step on what the steps before it handed on, and note what it hands on."""
    handed = {before.key: place.handles[before.key] for before in call.inputs.values() if before in call.needs()}
    inputs = {name: handed.get(getattr(value, "key", ""), value) for name, value in call.inputs.items()}
    cost = _alone(partial(_step_runner, call.name, inputs, place), place.folder)
    place.handles[call.key] = cost.answer
    return cost


def _step_runner(name: str, inputs: Mapping[str, Any], place: Place) -> Piece:
    find_step("ingest.taken_in" if name == "ingest" else name)
    if name.startswith("validate."):
        importlib.import_module("expectations.judge")  # Great Expectations: seconds that every run pays once
    store, spec = Store(place.root), _spec(place.drop)
    return partial(perform, name, store=store, spec=spec, **inputs)


def _spec(drop: Path) -> Spec:
    label = {"gains": {"click": 1.0, "purchase": 5.0}, "target": "purchase", "segments": ["x_surface"]}
    views = {VIEW: [VIEW_COLUMN]}
    return Spec.parse({"source": {"uri": str(drop)}, "label": label, "features": {"views": views}})


def _drop_writer(out: Path, size: Size, seed: int) -> Piece:
    return partial(write_drop, out, size, seed=seed)


def _alone(prepare: Callable[[], Piece], folder: Path) -> Cost:
    """Do a piece of work in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_cost, prepare, folder / "cache").result()


def _cost(prepare: Callable[[], Piece], cache: Path) -> Cost:
    os.environ["SAMEWORLD_CACHE"] = str(cache)  # of this process: no file's hash is known from an earlier run
    work = prepare()
    started, busy = time.perf_counter(), time.process_time()
    answer = work()
    return Cost(time.perf_counter() - started, time.process_time() - busy, _peak_mb(), answer)


def _peak_mb() -> float:
    """Return this process's highest resident memory; what getrusage says has the parent's in it on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii", errors="replace").splitlines() if status.exists() else []
    peak = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return (peak[0] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def growth(figures: Sequence[Figure]) -> dict[str, list[float]]:
    """Return, by step, the exponent b of seconds ~ rows ** b from each size to the next.

    >>> two = [Figure("label", n, Cost(s, s, 0), Cost(1, 1, 0), None, 0) for n, s in ((10, 1.0), (100, 10.0))]
    >>> growth(two)
    {'label': [1.0]}
    """
    found: dict[str, list[float]] = {}
    for step in dict.fromkeys(figure.step for figure in figures):
        sizes = sorted((one.rows, one.cost.seconds) for one in figures if one.step == step)
        found[step] = [math.log(t1 / t0) / math.log(n1 / n0) for (n0, t0), (n1, t1) in pairwise(sizes)]
    return found


def page(figures: Sequence[Figure], *, seed: int) -> str:
    """Return the figures as a Markdown page."""
    memory = psutil.virtual_memory().total / 2**30
    lines = [
        "# Benchmarks of the table steps",
        "",
        f"Seed {seed}; commit {commit()}; {os.cpu_count()} cores, {memory:.0f} GiB.",
        "A generated drop: 40 features, ten positions a request, thirty days, clicks and purchases that land up to two",
        "days late, one view of items with a batch a day. Each piece has a process of its own; imports do not count.",
        "The floor is Polars' streaming engine reading and writing the same columns and nothing else, in the same run.",
        "`make bench` prints this page and writes it.",
        "",
        "| step | impressions | seconds | floor seconds | ratio | CPU ratio | asked | peak MB | floor's peak MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_row(one) for one in figures),
        "",
        f"Asked for at 10 million: the ratio in that column, and at most {MOST_MB:,} MB in every step. "
        + _missed(figures),
        "",
        *_growth_table(figures),
        *_next_day_table(figures),
        *_others_table(figures),
        "Which bounds are missed and why, what was tried, and 100 million impressions: [notes](benchmark_notes.md).",
        "",
    ]
    return "\n".join(lines)


def _row(one: Figure) -> str:
    numbers = f"{one.cost.seconds:.2f} | {one.floor.seconds:.2f} | {one.ratio:.2f} | {one.cpu_ratio:.2f}"
    asked = f"≤ {MOST[one.step]:g}" if one.step in MOST else ""
    return f"| {one.step} | {one.rows:,} | {numbers} | {asked} | {one.cost.peak_mb:,.0f} | {one.floor.peak_mb:,.0f} |"


def _missed(figures: Sequence[Figure]) -> str:
    """Say which bounds are not reached at the size at which they are asked for."""
    at_size = [one for one in figures if one.rows == SIZES[-1]]
    slow = [one for one in at_size if one.ratio > MOST.get(one.step, math.inf)]
    large = [one for one in at_size if one.cost.peak_mb > MOST_MB]
    words = [f"{one.step} takes {one.ratio:.2f} times its floor" for one in slow]
    words += [f"{one.step} holds {one.cost.peak_mb:,.0f} MB" for one in large]
    if not at_size:
        return "That size was not measured here."
    if (share := _next_day_share(at_size)) > MOST_NEXT_DAY:
        words.append(f"the next day takes {share:.2f} of a first run")
    return f"Not reached: {'; '.join(words)}." if words else "All of them are reached."


def _growth_table(figures: Sequence[Figure]) -> list[str]:
    sizes = sorted({one.rows for one in figures})
    if len(sizes) < 2:
        return []
    steps = [f"| {step} | {' | '.join(f'{b:.2f}' for b in found)} |" for step, found in growth(figures).items()]
    heads = " | ".join(f"{low:,} to {high:,}" for low, high in pairwise(sizes))
    line = f"|---|{'--:|' * (len(sizes) - 1)}"
    says = f"Growth: the exponent b of seconds ~ rows^b; 1 is linear, asked is at most {MOST_GROWTH}."
    return [says, "", f"| step | {heads} |", line, *steps, ""]


def _next_day_table(figures: Sequence[Figure]) -> list[str]:
    rows = []
    for size in sorted({one.rows for one in figures}):
        of_size = [one for one in figures if one.rows == size]
        steps = [(one.step, one.cost.seconds, one.next_day_seconds) for one in of_size]
        total = ("all", sum(one[1] for one in steps), sum(one[2] for one in steps))
        rows += [f"| {name} | {size:,} | {a:.2f} | {b:.2f} | {b / a:.2f} |" for name, a, b in (*steps, total)]
    says = "The next day: with the first thirty days run, the thirty-first in the same root. Asked is a third in all."
    return [says, "", "| step | impressions | first run, s | next day, s | ratio |", "|---|--:|--:|--:|--:|", *rows, ""]


def _others_table(figures: Sequence[Figure]) -> list[str]:
    rows = [
        f"| {one.step} | {one.rows:,} | {OTHERS[one.step][0]} | {one.other.seconds:.2f} | "
        f"{one.other.seconds / one.cost.seconds:.1f} | {one.other.peak_mb:,.0f} |"
        for one in figures
        if one.other
    ]
    head = "| step | impressions | way | seconds | times the step's | peak MB |"
    return ["Other ways to the same table, or check.", "", head, "|---|--:|---|--:|--:|--:|", *rows, ""]


def run(small: bool) -> dict[str, Any]:
    """Measure and judge: memory at any size, times of the floor where the floor is long enough to be one."""
    sizes = (SMALL,) if small else SIZES
    figures = [one for rows in sizes for one in _measured_aside(rows, seed=1, aside=None)]
    claims = [_memory_claim(one) for one in figures]
    largest = [one for one in figures if one.rows >= SIZES[-1]]
    claims += [_time_claim(one) for one in largest if one.step in MOST]
    claims += [_next_day_claim(largest)] if largest else []
    claims += [] if small else [_growth_claim(step, max(found)) for step, found in growth(figures).items()]
    return finding(seed=1, claims=claims, figures={"table": [_row(one) for one in figures]})


def _memory_claim(one: Figure) -> Claim:
    what = f"peak memory of {one.step}, {one.rows:,} impressions"
    return Claim(what, f"{one.cost.peak_mb:,.0f} MB", f"at most {MOST_MB:,} MB", holds=one.cost.peak_mb <= MOST_MB)


def _time_claim(one: Figure) -> Claim:
    what, most = f"{one.step} in times its floor, {one.rows:,} impressions", MOST[one.step]
    return Claim(what, f"{one.ratio:.2f}", f"at most {most}", holds=one.ratio <= most)


def _next_day_claim(figures: Sequence[Figure]) -> Claim:
    share = _next_day_share(figures)
    what = f"the next day's table steps, {figures[0].rows:,} impressions"
    return Claim(what, f"{share:.2f} of a first run", "at most a third", holds=share <= MOST_NEXT_DAY)


def _next_day_share(figures: Sequence[Figure]) -> float:
    return sum(one.next_day_seconds for one in figures) / sum(one.cost.seconds for one in figures)


def _growth_claim(step: str, exponent: float) -> Claim:
    return Claim(f"growth of {step}", f"rows^{exponent:.2f}", f"at most {MOST_GROWTH}", holds=exponent <= MOST_GROWTH)


def _measured_aside(rows: int, *, seed: int, aside: Path | None) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sameworld-bench-", dir=aside) as folder:
        return measure(rows, seed=seed, folder=Path(folder))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure at the sizes asked for, and print the page or write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description="Speed and memory of the steps.")
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES), help="impressions, one size or several")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where data lies meanwhile (default: the temporary folder)")
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name}")
    asked = parser.parse_args(arguments)
    figures = [one for rows in sorted(asked.rows) for one in _measured_aside(rows, seed=asked.seed, aside=asked.folder)]
    text = page(figures, seed=asked.seed)
    if asked.write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
