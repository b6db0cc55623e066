"""Days backfilled forward, backward and two at a time give the same steps, byte for byte."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from whole.small_days import content, days_of, fresh, loop_drop, loop_tree, run

DAYS = 3


def newest() -> list[date]:
    return days_of(loop_drop())[-DAYS:]


def ran(root: Path, day: date) -> str:
    return str(run(root, loop_tree(loop_drop()), day).report["run"]["fingerprint"])


@functools.cache
def forward() -> tuple[Path, dict[date, str]]:
    root = fresh("forward")
    return root, {day: ran(root, day) for day in newest()}


def without_decisions(root: Path) -> dict[str, str]:
    return {name: digest for name, digest in content(root).items() if not name.startswith("artifacts/decide/")}


def test_fault_45_days_backfilled_backward_give_the_same_bytes() -> None:
    root, wanted = fresh("backward"), forward()[1]
    assert {day: ran(root, day) for day in reversed(newest())} == wanted
    assert without_decisions(root) == without_decisions(forward()[0])


def test_fault_45_days_backfilled_two_at_a_time_give_the_same_bytes() -> None:
    root = fresh("parallel")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(newest(), pool.map(lambda day: ran(root, day), newest()), strict=True))
    assert found == forward()[1]
    assert without_decisions(root) == without_decisions(forward()[0])


def test_a_day_run_again_after_later_days_reuses_every_step() -> None:
    root = forward()[0]
    again = run(root, loop_tree(loop_drop()), newest()[0])
    assert all(step["reused"] for step in again.report["steps"])
