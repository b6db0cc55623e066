"""Fault 58: what does not fit is refused with the size it needs, before it begins, and nothing of it is published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from whole.small_days import days_of, fresh, loop_drop, loop_tree, run

from sameworld.models.training_table import memory_needed
from sameworld.records import Refused


def test_fault_58_training_beyond_the_memory_limit_is_refused_with_the_size_needed() -> None:
    drop, root = loop_drop(seed=3, days=6, requests_per_day=50), fresh("limit")
    tree = {**loop_tree(drop, target="click", window_days=1), "engine": {"memory_gb": 0.25}}
    with pytest.raises(Refused, match=re.escape("does not fit: got engine.memory_gb = 0.25; wanted at least 0.5 GB")):
        run(root, tree, days_of(drop)[4], only="train")
    assert not (Path(root) / "artifacts" / "train").exists()
    run(root, {**tree, "engine": {"memory_gb": 4.0}}, days_of(drop)[4], only="train")
    assert (Path(root) / "artifacts" / "train").exists()


def test_fault_58_ten_million_rows_of_forty_features_are_beyond_four_gigabytes_and_within_sixteen() -> None:
    assert 4e9 < memory_needed(10_000_000, 40) < 16e9
