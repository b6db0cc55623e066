"""The same day in a folder and on S3, from a drop in a folder and on S3: the same fingerprints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from s3_server import a_bucket, moto_server, point_at
from whole.small_days import Tree, copied, days_of, fresh, loop_drop, loop_tree, run

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


def test_a_folder_and_s3_give_the_same_fingerprints_and_answers(bucket: str) -> None:
    here = day_on(fresh("here"), drop())
    there = day_on(f"s3://{bucket}/root", upload(drop(), bucket, "logs/feed"))
    assert fingerprints(there) == fingerprints(here)
    assert answers(there) == answers(here)
    assert there.report["decision"]["bundle"] == here.report["decision"]["bundle"]
    assert there.html.startswith(f"s3://{bucket}/root/runs/")


def test_a_day_run_again_on_s3_reuses_every_step_and_puts_no_object(bucket: str) -> None:
    root = f"s3://{bucket}/again"
    day_on(root, drop())
    before = objects(bucket)
    again = day_on(root, drop())
    assert all(step["reused"] for step in again.report["steps"])
    assert {key: tag for key, tag in objects(bucket).items() if "/runs/" not in key} == {
        key: tag for key, tag in before.items() if "/runs/" not in key
    }


def test_fault_10_the_same_drop_from_another_place_is_the_same_drop() -> None:
    root = fresh("moved")
    first, again = day_on(root, drop()), day_on(root, drop())
    moved = day_on(fresh("other"), copied(drop()))
    assert fingerprints(first) == fingerprints(again) == fingerprints(moved)


def objects(bucket: str) -> dict[str, str]:
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {one["Key"]: one["ETag"] + str(one["LastModified"]) for page in pages for one in page.get("Contents", ())}
