"""Repeats through the whole flow: what was planted is measured, weighed and left out; a clean log costs nothing."""

from __future__ import annotations

import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from whole.small_days import copied, days_of, fresh, loop_drop, loop_tree, made_by, run

from benchmarks._planted_repeats import BOT, Planted, plant_repeats
from sameworld.records import Refused
from sameworld.spec import Spec
from sameworld.store.artifacts import Store
from sameworld.store.parts import labels_of, parts_of
from sameworld.store.repeat_rows import left_out, repeat_weights
from tasks.report import Written

SIZE = {"seed": 7, "days": 6, "requests_per_day": 130}
LEARNS = {"target": "click", "window_days": 1}


@functools.cache
def planted() -> tuple[Path, Planted]:
    out = fresh("planted") / "drop"
    return out, plant_repeats(loop_drop(**SIZE), out, seed=1, retried=0.15, bot_share=0.3)


@functools.cache
def day(*, clean: bool, rule: str, only: str = "evaluate") -> tuple[Path, Written]:
    drop = loop_drop(**SIZE) if clean else planted()[0]
    root = fresh("root")
    tree = {**loop_tree(drop, **LEARNS), "repeats": {"rule": rule}, "backtest": {"days": 1}}
    return root, run(root, tree, days_of(drop)[-1], only=only)


def labels(root: Path, written: Written) -> pl.DataFrame:
    return labels_of(made_by(root, written, "label"), Store(str(root))).collect()


def told(written: Written) -> dict[str, Any]:
    found: dict[str, Any] = written.report["training_set"]["repeats"]
    return found


def test_what_was_planted_is_counted_exactly() -> None:
    found, plan = told(day(clean=False, rule="weigh")[1]), planted()[1]
    slots, copies = 5, [len(one) for one in plan.clusters]
    assert found["bots"] == 1
    assert (found["bot_requests"], found["bot_rows"]) == (len(plan.bot), slots * len(plan.bot))
    assert (found["clusters"], found["clustered_requests"]) == (len(copies), sum(copies))
    assert found["clustered_rows"] == slots * sum(copies)
    assert found["left_out_requests"] == len(plan.bot) + sum(copies) - len(copies)
    assert abs(found["bot_share"] - 0.3) < 0.01


def test_contradictions_are_those_that_a_loop_over_the_labels_finds() -> None:
    root, written = day(clean=False, rule="weigh")
    cluster = {request: number for number, one in enumerate(planted()[1].clusters) for request in one}
    targets = defaultdict(list)
    for request, item, target in labels(root, written).select("request_id", "item_id", "target").iter_rows():
        if request in cluster:
            targets[cluster[request], item].append(target)
    differing = {key: values for key, values in targets.items() if len(set(values)) > 1}
    found = told(written)
    assert found["contradictory_clusters"] == len({number for number, _ in differing}) > 20
    assert found["contradictory_rows"] == sum(map(len, differing.values()))


def test_every_copy_weighs_its_share_and_the_robot_no_more_than_fifty_requests_a_day() -> None:
    root, written = day(clean=False, rule="weigh")
    found, judged = repeat_weights(made_by(root, written, "find_repeats"), Store(str(root)))
    rows = labels(root, written).with_columns(weight=pl.Series(found), judged=pl.Series(judged))
    gone = left_out(made_by(root, written, "find_repeats"), Store(str(root)))["request_id"]
    assert set(rows.filter(~pl.col("judged"))["request_id"]) == set(gone)
    weight = dict(rows.select("request_id", "weight").unique().iter_rows())
    assert len(weight) == rows["request_id"].n_unique()
    for cluster in planted()[1].clusters:
        assert np.allclose([weight[one] for one in cluster], 1 / len(cluster))
    bot = rows.filter(user_id=BOT).group_by("part").agg(pl.col("weight").sum() / 5)
    assert np.allclose(bot["weight"], 50.0)
    known = {one for cluster in planted()[1].clusters for one in cluster} | set(planted()[1].bot)
    assert {weight[one] for one in weight if one not in known} == {1.0}


def test_left_out_are_the_robot_and_all_copies_but_the_last_whatever_came_of_them() -> None:
    root, written = day(clean=False, rule="leave_out")
    plan = planted()[1]
    gone = left_out(made_by(root, written, "find_repeats"), Store(str(root)))["request_id"].to_list()
    assert sorted(gone) == sorted([*plan.bot, *(one for cluster in plan.clusters for one in cluster[:-1])])
    assert told(written)["effective_rows"] == told(written)["rows"] - told(written)["left_out_rows"]


@pytest.mark.parametrize("rule", ["leave_out", "keep"])
def test_each_wish_is_judged_once_unless_all_are_kept_and_the_effect_stands_beside(rule: str) -> None:
    root, written = day(clean=False, rule=rule)
    judged = made_by(root, written, "evaluate").scan("judged").collect()
    gone = set(left_out(made_by(root, written, "find_repeats"), Store(str(root)))["request_id"])
    assert bool(gone & set(judged["request_id"])) == (rule == "keep")
    effect = told(written)["effect"]
    for name, both in effect["metrics"].items():
        got = {part: written.report["metrics"][name][part] for part in ("value", "low", "high")}
        assert both["with" if rule == "keep" else "without"] == pytest.approx(got), name
    assert effect["metrics"]["calibration_ratio"]["with"] != effect["metrics"]["calibration_ratio"]["without"]


def test_a_clean_log_trains_the_same_model_byte_for_byte_under_every_rule() -> None:
    roots = {rule: day(clean=True, rule=rule, only="calibrate") for rule in ("weigh", "keep")}
    made = {rule: made_by(*one, "calibrate") for rule, one in roots.items()}
    for file in ("probability.txt", "ranker.txt", "items.npz"):
        assert len({one.path(file).read_bytes() for one in made.values()}) == 1, file
    for root, written in roots.values():
        found = made_by(root, written, "find_repeats")
        files = [part.artifact.files for part in parts_of(found, Store(str(root)))]
        assert {name for names in files for name in names} <= {"record.json"}


def test_a_closed_day_keeps_its_part_when_later_days_arrive() -> None:
    drop, root = planted()[0], fresh("root")
    tree = {**loop_tree(drop, **LEARNS)}
    first, second = (
        made_by(root, run(root, tree, days_of(drop)[last], only="find_repeats"), "find_repeats") for last in (-2, -1)
    )
    before, after = ({one["day"]: one["fingerprint"] for one in made.record["parts"]} for made in (first, second))
    same = [name for name in before if before[name] == after[name]]
    assert len(same) >= 2
    assert set(before) <= set(after)


def test_a_log_without_users_has_no_repeats() -> None:
    drop, root = copied(planted()[0]), fresh("root")
    for file in drop.glob("day=*/impressions/*.parquet"):
        pl.read_parquet(file).with_columns(user_id=pl.lit(None, pl.String)).write_parquet(file)
    written = run(root, loop_tree(drop, **LEARNS), days_of(drop)[-1], only="find_repeats")
    found = made_by(root, written, "find_repeats")
    assert (found.record["clusters"], found.record["bots"], found.record["same_pair"]["rows"]) == (0, 0, 0)
    assert (repeat_weights(found, Store(str(root)))[0] == 1.0).all()


def test_a_rule_that_there_is_not_is_refused() -> None:
    with pytest.raises(Refused, match="'weigh', 'leave_out' or 'keep'"):
        Spec.parse({**loop_tree("somewhere"), "repeats": {"rule": "drop"}})
