"""The whole training step, each time in a process of its own with another number of threads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from whole.small_days import content, days_of, fresh, loop_drop, loop_tree

from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.times import day_end, time_text
from tasks.flow import perform
from tasks.run import Call, planned

TESTS = Path(__file__).parents[1]
MAKE = "import sys; from whole.test_any_threads import make; make(*sys.argv[1:])"


def make(root: str, tree: str, cutoff: str, last: str) -> None:
    """Make all steps that ``last`` needs, without the gates; what the root has is reused."""
    steps: dict[str, Any] = {}
    for call in planned(cutoff).only(last):
        if not call.name.startswith("validate."):
            given = {name: steps[one.key] if isinstance(one, Call) else one for name, one in call.inputs.items()}
            steps[call.key] = perform(call.name, store=Store(root), spec=Spec.parse(json.loads(tree)), **given)


def trained(root: Path, tree: str, cutoff: str, *, threads: int) -> dict[str, str]:
    """Train and calibrate in a copy of the root with so many threads; return the hashes of what was written."""
    copy = fresh("copy") / "root"
    shutil.copytree(root, copy)
    environment = {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_WAIT_POLICY": "PASSIVE"}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), str(threads))
    command = [sys.executable, "-c", MAKE, str(copy), tree, cutoff, "calibrate"]
    subprocess.run(command, env={**os.environ, **environment, **counts}, check=True)
    return {name: hash_ for name, hash_ in content(copy).items() if name.split("/")[1] in {"train", "calibrate"}}


def test_fault_60_the_training_step_writes_the_same_bytes_with_1_2_4_and_16_threads() -> None:
    drop, root = loop_drop(), fresh("root")
    settings = {"max_rounds": 30, "negative_rate": 0.5}
    tree, cutoff = json.dumps({**loop_tree(drop), "train": settings}), time_text(day_end(days_of(drop)[-1]))
    make(str(root), tree, cutoff, "assemble")
    made = [trained(root, tree, cutoff, threads=threads) for threads in (1, 2, 4, 16)]
    assert made[0] == made[1] == made[2] == made[3]
    files = {name.rsplit("/", 1)[1] for name in made[0]}
    assert {"probability.txt", "ranker.txt", "items.json", "held_out.parquet", "bundle.json", "items.npz"} <= files
