"""The same day in a folder and on S3, from a drop in a folder and on S3: the same fingerprints."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from s3_server import a_bucket, moto_server, point_at
from whole.small_days import Tree, content, copied, days_of, fresh, loop_drop, loop_tree, run

from tasks.report import Written

DAYS = 5


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with moto_server() as found:
        yield found


@pytest.fixture
def bucket(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    point_at(monkeypatch, address, tmp_path / "cache")
    return a_bucket()


def drop() -> Path:
    return loop_drop(seed=3, days=DAYS, requests_per_day=60)


def tree(uri: Path | str) -> Tree:
    return {**loop_tree(uri, target="click", window_days=1), "backtest": {"days": 1}}


def day_on(root: Path | str, uri: Path | str) -> Written:
    return run(root, tree(uri), days_of(drop())[-1])


def fingerprints(written: Written) -> list[tuple[str, str]]:
    return [(step["name"], step["fingerprint"]) for step in written.report["steps"]]


def answers(written: Written) -> dict[str, object]:
    names = ("log", "delay", "labels", "training_set", "metrics", "policy_value", "comparison")
    return {name: written.report[name] for name in names}


def upload(folder: Path, bucket: str, prefix: str) -> str:
    for file in folder.rglob("*"):
        if file.is_file():
            boto3.client("s3").upload_file(str(file), bucket, f"{prefix}/{file.relative_to(folder)}")
    return f"s3://{bucket}/{prefix}"


@functools.cache
def here() -> tuple[Path, Written]:
    root = fresh("here")
    return root, day_on(root, drop())


def test_a_day_on_s3_has_the_fingerprints_and_answers_of_a_folder_and_is_reused(bucket: str) -> None:
    root, uri = f"s3://{bucket}/root", upload(drop(), bucket, "logs/feed")
    there, before = day_on(root, uri), objects(bucket)
    assert fingerprints(there) == fingerprints(here()[1])
    assert answers(there) == answers(here()[1])
    assert there.html.startswith(f"{root}/runs/")
    again = day_on(root, uri)
    assert all(step["reused"] for step in again.report["steps"])
    assert objects(bucket) == before


def test_a_folders_drop_gives_a_root_on_s3_the_same_fingerprints(bucket: str) -> None:
    there = run(f"s3://{bucket}/root", tree(drop()), days_of(drop())[-1], only="label")
    named = {step["name"] for step in there.report["steps"]}
    assert fingerprints(there) == [one for one in fingerprints(here()[1]) if one[0] in named]


def test_fault_10_the_same_drop_twice_or_from_another_place_is_the_same_drop() -> None:
    root, first = here()
    before = content(root)
    again, moved = day_on(root, drop()), day_on(fresh("other"), copied(drop()))
    assert content(root) == before
    assert fingerprints(first) == fingerprints(again) == fingerprints(moved)


def objects(bucket: str) -> dict[str, str]:
    """Every object but the runs' pages, which may be written again."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    found = [one for page in pages for one in page.get("Contents", ())]
    return {one["Key"]: one["ETag"] + str(one["LastModified"]) for one in found if "/runs/" not in one["Key"]}
