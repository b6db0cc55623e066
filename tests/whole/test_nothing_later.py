"""The property that all rests on: what arrives after the cutoff changes no byte of what the cutoff gave."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from whole.small_days import Tree, content, copied, days_of, fresh, loop_drop, loop_tree, run, tree_of
from worlds.drop_files import Shop
from worlds.news import NewsFeed, write_news_feed

RUN, LAST = 4, 6  # the fifth of six days is run


@functools.cache
def small_news(seed: int) -> Shop:
    return write_news_feed(fresh("news") / "drop", NewsFeed(seed=seed, days=LAST, requests_per_day=50, users=60))


def world(name: str, seed: int) -> tuple[Path, Tree]:
    if name == "news":
        return small_news(seed).drop, {**tree_of(small_news(seed)), "backtest": {"days": 1}}
    drop = loop_drop(seed=seed, days=LAST, requests_per_day=50)
    return drop, {**loop_tree(drop, target="click", window_days=1), "backtest": {"days": 1}}


def given(name: str, drop: Path, tree: Tree) -> dict[str, str]:
    """What the day gives on a drop: the content of a new root."""
    root = fresh(name)
    written = run(root, {**tree, "source": {"kind": "drop", "uri": str(drop)}}, days_of(drop)[RUN])
    assert written.report["evaluated"]["rows"] > 0
    return content(root)


@functools.cache
def as_it_was(name: str, seed: int) -> dict[str, str]:
    drop, tree = world(name, seed)
    return given("whole", drop, tree)


def later_days(drop: Path) -> list[Path]:
    return [drop / f"day={day}" for day in days_of(drop)[RUN + 1 :]]


def replaced_by_another_world(drop: Path, other: Path) -> None:
    for folder in later_days(drop):
        shutil.rmtree(folder)
        shutil.copytree(other / folder.name, folder)


@pytest.mark.parametrize(("name", "seed"), [("news", 1), ("loop", 2)])
def test_fault_24_a_day_gives_the_same_bytes_when_all_later_days_are_deleted(name: str, seed: int) -> None:
    drop, tree = world(name, seed)
    cut = copied(drop)
    for folder in later_days(cut):
        shutil.rmtree(folder)
    assert given("cut", cut, tree) == as_it_was(name, seed)


@pytest.mark.parametrize(("name", "seed"), [("news", 1), ("loop", 2)])
def test_fault_24_a_day_gives_the_same_bytes_when_all_later_days_are_another_world(name: str, seed: int) -> None:
    drop, tree = world(name, seed)
    noisy = copied(drop)
    replaced_by_another_world(noisy, world(name, seed + 100)[0])
    broken = next(later_days(noisy)[-1].rglob("*.parquet"))
    broken.write_bytes(np.random.default_rng(seed).bytes(2000))
    assert given("noisy", noisy, tree) == as_it_was(name, seed)


def test_what_arrives_before_the_cutoff_does_change_the_bytes() -> None:
    """Else the tests above would pass on a hash of nothing."""
    drop, tree = world("loop", 2)
    other = copied(drop)
    outcomes = next((other / f"day={days_of(other)[RUN]}" / "outcomes").glob("*.parquet"))
    pl.read_parquet(outcomes).slice(3).write_parquet(outcomes)  # so little that no gate minds
    root = fresh("changed")
    run(root, {**tree, "source": {"kind": "drop", "uri": str(other)}}, days_of(other)[RUN], only="label")
    before, after = as_it_was("loop", 2), content(root)
    cutoff = f"{days_of(other)[RUN + 1]}T00:00:00Z"
    manifests = sorted(Path(root).rglob("manifest.json"))
    of_the_run = [path.parent for path in manifests if json.loads(path.read_bytes())["cutoff"] == cutoff]
    steps = {folder.parent.name for folder in of_the_run}
    assert {"resolve", "validate", "measure_delay", "label"} <= steps
    assert not [name for name in after if name in before for folder in of_the_run if f"/{folder.name}/" in f"/{name}"]
