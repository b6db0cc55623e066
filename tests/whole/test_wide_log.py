"""A log of five thousand features goes through the whole flow, in memory that does not grow with their square."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

from core.core_builders import TESTS

RUN_A_DAY = """
import json, sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np, polars as pl
from whole.small_days import copied, days_of, fresh, loop_drop, loop_tree, run
drop, rng = copied(loop_drop(seed=3, days=5, requests_per_day=60)), np.random.default_rng(1)
for file in sorted(drop.glob("day=*/impressions/*.parquet")):
    rows = pl.read_parquet(file)
    noise = rng.standard_normal((int(sys.argv[2]), len(rows)), np.float32)
    rows.with_columns(pl.Series(f"x_noise_{n}", one) for n, one in enumerate(noise)).write_parquet(file)
quick = {"backtest": {"days": 1}, "train": {"max_rounds": 1}}
report = run(fresh("root"), {**loop_tree(drop, target="click", window_days=1), **quick}, days_of(drop)[-1]).report
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
told = {"features": len(report["model"]["features"]), "rows": report["training_set"]["rows"]}
print(json.dumps({**told, "outcome": report["decision"]["outcome"], "peak_mb": int(peak.split()[1]) / 1024}))
"""


@functools.cache
def day_of(features: int) -> dict[str, Any]:
    """Run a small closed loop's last day, with so many more features, in a process of its own."""
    command = [sys.executable, "-c", RUN_A_DAY, str(TESTS), str(features)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_fault_59_five_thousand_features_go_through_the_whole_flow_in_bounded_memory() -> None:
    told = day_of(5_000)
    assert told["features"] > 5_000
    assert told["rows"] == 5 * 60 * 5
    assert told["outcome"] in {"PROMOTE", "HOLD", "REJECT"}
    assert told["peak_mb"] < 2_500
