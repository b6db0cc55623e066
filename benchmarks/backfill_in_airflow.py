"""Does `airflow backfill create` give what the same days give in one process? A real scheduler, ten days, two passes.

An Airflow of its own is started (scheduler, DAG processor, API server; SQLite, two workers) on a simulated shop's log.
The days are backfilled with `--reprocess-behavior none`, two at a time, and then once more with `completed`. Then, of
the newest day, every task is run again alone: in an order that was drawn, what it had made is taken away and the task
is cleared. Claims: each day's steps have the fingerprints, and their artifacts the bytes, of the same days run one
after the other in one process (`decide` and `promote` depend on what was in production by then, and are left out); no
task is tried twice; two days run at once and never three; the second pass reuses every step; a task that is run again
makes the same artifact with the same bytes; and no process is left. The small size is three days and five tasks.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.evidence import PROJECT, Claim, finding

sys.path.append(str(PROJECT / "tests"))  # the throwaway Airflow is the tests' own

from in_airflow.live_airflow import Airflow, live_airflow
from in_airflow.told_runs import Backfilled, Told, backfilled, run_again, start_backfill, steps_before_the_registry
from whole.small_days import content

from sameworld.store.artifacts import Store
from tasks.cli.specs import find_spec
from tasks.run import planned, run_day

SEED, FIRST_DAY = 7, date(2026, 3, 1)
SHOP = """
[source]
kind = "closed_loop"
[source.world]
days = {days}
requests_per_day = 100
users = 60
items = 40
candidates = 8
slots = 4
click_intercept = -0.5
[label]
window_days = 1
gains = {{ click = 1.0, purchase = 5.0 }}
target = "click"
[train]
max_rounds = 20
[backtest]
days = 2
[evaluate]
replicates = 100
"""


@dataclass(frozen=True)
class Size:
    """How many days are backfilled, after how many that are not, and how many tasks are run again."""

    before: int
    days: int
    tasks: int

    @property
    def wanted(self) -> list[date]:
        """The days that are backfilled, oldest first."""
        return [FIRST_DAY + timedelta(days=self.before + number) for number in range(self.days)]


SIZES = {"small": Size(before=8, days=3, tasks=5), "full": Size(before=8, days=10, tasks=99)}


@dataclass(frozen=True)
class Ran:
    """What the two passes came to, what lay in the root after each of them and at the end, and what was left."""

    first: Backfilled
    second: Backfilled
    made: tuple[dict[str, str], dict[str, str], dict[str, str]]
    again: Mapping[str, tuple[Any, Any]]
    left: int
    seconds: tuple[float, float]


def run(small: bool) -> dict[str, Any]:
    """Backfill three days twice, or ten."""
    size = SIZES["small" if small else "full"]
    with tempfile.TemporaryDirectory(prefix="sameworld-airflow-") as folder:
        spec = Path(folder) / "shop.toml"
        spec.write_text(SHOP.format(days=size.before + size.days), encoding="utf-8")
        alone, made = one_by_one(Path(folder) / "alone", spec, size)
        ran = in_airflow(Path(folder), spec, size)
    figures = {"days": size.days, "tasks_run_again": len(ran.again), "artifacts": len(made),
               "seconds": dict(zip(("none", "completed"), ran.seconds, strict=True))}  # fmt: skip
    return finding(seed=SEED, claims=claims(ran, alone, without_decisions(made), size), figures=figures)


def one_by_one(root: Path, spec: Path, size: Size) -> tuple[dict[date, set[tuple[str, str]]], dict[str, str]]:
    """Run the days in this process, oldest first: their steps, and what lies in the root then."""
    store, chosen = Store(str(root)), find_spec(str(spec))
    return {day: steps_before_the_registry(run_day(store, chosen, day).report) for day in size.wanted}, content(root)


def in_airflow(home: Path, spec: Path, size: Size) -> Ran:
    """Backfill the days twice in an Airflow of its own, and run tasks of the newest day again."""
    root, days = home / "root", size.wanted
    with live_airflow(home) as airflow:
        airflow.ask("PATCH", "/api/v2/dags/retrain", {"is_paused": False})
        first, seconds = _pass(airflow, spec, root, days, "none")
        after_first = content(root)
        second, more_seconds = _pass(airflow, spec, root, days, "completed")
        after_second = content(root)
        again = _run_again(airflow, second.days[days[-1]], second.run_ids[days[-1]], size.tasks)
        made = (after_first, after_second, content(root))
    left = len(airflow.processes())
    return Ran(first, second, made, again, left, (seconds, more_seconds))


def _pass(airflow: Airflow, spec: Path, root: Path, days: list[date], behavior: str) -> tuple[Backfilled, float]:
    started = time.perf_counter()
    start_backfill(airflow, days[0], days[-1], behavior=behavior, conf={"spec": str(spec), "root": str(root)})
    found = backfilled(airflow, seconds=600 * len(days))
    return found, round(time.perf_counter() - started, 1)


def _run_again(airflow: Airflow, told: Told, run_id: str, most: int) -> dict[str, tuple[Any, Any]]:
    """Run tasks again, one at a time in an order that is drawn; return what each handed on before and after."""
    tasks = [call.key for call in planned("2026-03-02T00:00:00Z").calls]
    drawn = random.Random(SEED).sample(tasks, min(most, len(tasks)))
    return {task: (told.xcoms[task], run_again(airflow, run_id, task)) for task in drawn}


def without_decisions(made: Mapping[str, str]) -> dict[str, str]:
    """Leave out what depends on the promotions so far."""
    return {name: digest for name, digest in made.items() if not name.startswith("artifacts/decide/")}


def claims(ran: Ran, alone: Mapping[date, Any], made: Mapping[str, str], size: Size) -> list[Claim]:
    """Compare what Airflow made with what one process made, and the second pass with the first."""
    days, tasks = str(size.days), len(ran.again)
    equal = sum(steps_before_the_registry(one.report) == alone.get(day) for day, one in ran.first.days.items())
    once = all(set(one.tries.values()) == {1} for one in ran.first.days.values())
    found = without_decisions(ran.made[0])
    same = sum(found.get(name) == digest for name, digest in made.items())
    reused = sum(all(step["reused"] for step in one.report["steps"]) for one in ran.second.days.values())
    handed = sum(_uris(old) == _uris(new) for old, new in ran.again.values())
    bytes_kept = ran.made[2] == ran.made[1]
    at_once = (ran.first.at_once, ran.second.at_once)
    return [
        Claim("days whose steps have the fingerprints of one process", str(equal), days, equal == size.days),
        Claim("files with the bytes of one process", f"{same:,} of {len(found):,}", f"{len(made):,}", found == made),
        Claim("tasks tried more than once in the first pass", "none" if once else "some", "none", once),
        Claim("days at once at most, in each pass", "{} and {}".format(*at_once), "2 and 2", at_once == (2, 2)),
        Claim("days done whose every step is reused", str(reused), days, reused == size.days),
        Claim("tasks run again alone that hand on the same artifact", str(handed), str(tasks), handed == tasks),
        Claim("bytes in the root after that", "the same" if bytes_kept else "others", "the same", bytes_kept),
        Claim("processes left", str(ran.left), "0", ran.left == 0),
    ]


def _uris(handle: Any) -> Any:
    return handle["uri"]
