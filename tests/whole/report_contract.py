"""Checks a report against the contract's section 3: every path is there or says cannot, and every number is one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

Found = Iterator[tuple[str, Any]]
ESTIMATE = ("value", "low", "high")
ISO_Z = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
ANY_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")

# a.b: key b of a; *: every value of a mapping; []: every element of a list; (x|y): each of them
PATHS = """
run.(id|day|cutoff|spec|fingerprint|seconds|code_version)
log.*.(rows_in|kept|duplicates|conflicts|quarantined)
delay.landing_lag_hours.*.(q50|q90|q99)
delay.curves.[].(kind|segment|window_days|rate|completeness)
delay.shift.(alarm|reason)
labels.(rows|closed|open|closed_share|positives|late_after_close|by_kind)
training_set.(rows|requests|from|to|features|served_share|replayed_share|replay|splits|repeats)
training_set.repeats.(rule|clusters|clustered_share|contradictory_share|bots|bot_share|effective_rows|same_pair)
training_set.repeats.base_rate.(as_logged|by_rule)
position.examination
model.(version|rounds|features|bundle|backtest_bundle)
metrics.(mrr|normalised_entropy|calibration_ratio|ece|auc|coverage|exposure_gini).(popular|logged)
slices.[].(slice|value|rows|metrics)
policy_value.(value|low|high|method|from|to|requests|left_out_share|logged|lift|ess|clipped_mass|check|checks)
skew.[].(feature|view|compared|mismatch_share|missing_share|extra_share|stale_share)
staleness.[].(view|joined_share|q50_hours|q90_hours|q99_hours)
drills.[].(outage|kind|request_share|requests|reasons|hit|metrics)
loop.(rows|requests|from|to|by_day|budget)
loop.(explored_share|own_choice_share|support|concentration|exploration_cost|epsilon_enough|alarm)
loop.(explored_share|own_choice_share|support|concentration).(value|trend)
loop.budget.(precision|epsilon|half_width|requests|sampled|curve)
loop.by_day.[].(day|impressions|concentration)
leak.(metric|value|honest|inflation|by_source|metrics|from|to|rows|late_outcomes|late_retractions|sentence)
leak.by_source.outcomes.(value|inflation)
leak.by_source.*.inflation
leak.metrics.(normalised_entropy|calibration_ratio|auc).(value|honest|inflation)
early.(rows|requests|positives|from|to|completeness)
early.(calibration_ratio|observed_to_expected|normalised_entropy)
gap.(offline|production|terms)
comparison.(version|rows|metrics)
ab.(primary|guardrails|srm|immature_excluded|days_left|promised|explained)
decision.(outcome|reasons|bundle)
steps.[].(name|uri|fingerprint|seconds|reused|rows|peak_mb)
"""
ESTIMATES = """
delay.curves.[].rate
delay.curves.[].completeness.*
position.examination.[]
metrics.*
metrics.*.(popular|logged)
slices.[].metrics.*
policy_value.(logged|lift)
comparison.metrics.*
loop.(explored_share|own_choice_share|support|concentration).trend
loop.exploration_cost
early.(calibration_ratio|observed_to_expected|normalised_entropy)
leak.inflation
leak.by_source.*.inflation
leak.metrics.*.inflation
leak.snapshot.*.inflation
drills.[].metrics.*.(with|without|delta)
drills.[].hit.calibration_ratio
"""


def faults(report: dict[str, Any]) -> list[str]:
    """Return every way in which a report breaks the contract, each with its path."""
    missing = [f"{path}: is not there" for path in expanded(PATHS) for at, it in reached(report, path) if it is ...]
    found = [pair for path in expanded(ESTIMATES) for pair in reached(report, path)]
    shapes = [f"{at}: no estimate but {it!r}" for at, it in found if it is not ... and not is_estimate(it)]
    values = [f"{at}: {fault}" for at, it in walked(report, "") for fault in value_faults(at, it)]
    return [*missing, *shapes, *values]


def expanded(paths: str) -> list[str]:
    """Write out the alternatives of every line.

    >>> expanded("a.(b|c).d")
    ['a.b.d', 'a.c.d']
    """
    found = []
    for line in paths.split():
        head, bracket, rest = line.partition("(")
        inside, _, tail = rest.partition(")")
        found += expanded(" ".join(f"{head}{one}{tail}" for one in inside.split("|"))) if bracket else [line]
    return found


def reached(tree: Any, path: str, at: str = "") -> Found:
    """Yield what a path leads to; ``...`` where it leads nowhere. A cannot on the way is an answer."""
    if isinstance(tree, dict) and "cannot" in tree and not (path and set(tree) > {"cannot"} and path in tree):
        return
    name, _, rest = path.partition(".")
    if not path:
        yield at, tree
    elif name == "[]" and isinstance(tree, list):
        for number, one in enumerate(tree):
            yield from reached(one, rest, f"{at}[{number}]")
    elif name == "*" and isinstance(tree, dict):
        for key, one in tree.items():
            yield from reached(one, rest, f"{at}.{key}")
    elif isinstance(tree, dict) and name in tree:
        yield from reached(tree[name], rest, f"{at}.{name}")
    else:
        yield f"{at}.{path}", ...


def walked(tree: Any, at: str) -> Found:
    """Yield every value below, mappings and lists too."""
    yield at, tree
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, one in pairs:
        yield from walked(one, f"{at}.{key}")


def is_estimate(it: Any) -> bool:
    """Say whether it is an estimate, low ≤ value ≤ high, or says cannot."""
    if not isinstance(it, dict) or "cannot" in it:
        return isinstance(it, dict)
    return all(name in it for name in ESTIMATE) and it["low"] <= it["value"] <= it["high"]


def value_faults(at: str, it: Any) -> Iterator[str]:
    """Yield what is wrong with a value by itself."""
    if it is None:
        yield "null"
    if isinstance(it, float) and not math.isfinite(it):
        yield f"{it} is no number"
    if isinstance(it, dict) and set(ESTIMATE) <= set(it) and not it["low"] <= it["value"] <= it["high"]:
        yield f"the value is outside its interval: {it}"
    if isinstance(it, dict) and "cannot" in it and not (isinstance(it["cannot"], str) and it["cannot"].strip()):
        yield "a cannot without a reason"
    if isinstance(it, str) and ANY_TIME.match(it) and not ISO_Z.fullmatch(it):
        yield f"{it!r} is no ISO 8601 time with Z"


def row_sum_faults(report: dict[str, Any]) -> list[str]:
    """Return the tables whose rows in are not kept + duplicates + conflicts + quarantined."""
    told = {name: one["kept"] + one["duplicates"] + one["conflicts"] + sum(one["quarantined"].values())
            for name, one in report["log"].items()}  # fmt: skip
    return [f"{name}: {told[name]} of {one['rows_in']}" for name, one in report["log"].items()
            if told[name] != one["rows_in"]]  # fmt: skip
