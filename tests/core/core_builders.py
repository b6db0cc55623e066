"""Builds specs, steps, stores and logs for the tests of the core."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sameworld.spec import Spec
from sameworld.store import blobs, code
from sameworld.store.artifacts import Artifact, Store, canonical, fingerprint_of
from sameworld.store.log import Log
from sameworld.store.step import Step, Work

TESTS = Path(__file__).resolve().parents[1]
PROJECT = TESTS.parent
FIRST = date(2026, 3, 1)
CUTOFF = "2026-03-02T00:00:00Z"
UTC_US = pl.Datetime("us", "UTC")
GONE = {"day": pl.Date, "table": pl.String, "row": pl.UInt32, "reason": pl.String}


# --- specs


def a_tree(**sections: Any) -> dict[str, Any]:
    """Return a spec's tree with two kinds of outcomes and these sections."""
    return {"label": {"gains": {"click": 1.0, "purchase": 5.0}, "target": "click"}, **sections}


def a_spec(**sections: Any) -> Spec:
    """Return a valid spec with these sections."""
    return Spec.parse(a_tree(**sections))


_OTHER: dict[str, Any] = {
    "source.kind": "open_bandit",
    "source.world": {"users": 5},
    "source.tables": {"requests": {"files": "day={day}/*.parquet"}},
    "decide.metric": "mrr",
    "label.gains": {"click": 2.0},
    "label.target": "purchase",
    "features.views": {"stats": ["price"]},
    "repeats.rule": "leave_out",
    "train.position": "none",
    "train.delay": "closed_only",
    "train.order": "lambdarank",
    "train.item_history": False,
    "evaluate.at": [3],
    "decide.guardrails": {"ece": [0.0, 0.1]},
    "decide.drill_calibration": [0.5, 2.0],
    "decide.stage": "challenger",
    "engine.kind": "dask",
}


def changed(key: str) -> Spec:
    """Return ``a_spec()`` with another value under one key."""
    tree = a_spec().tree()
    section, name = key.split(".")
    old = tree[section][name]
    other = old + 1 if isinstance(old, int) else old / 2 if isinstance(old, float) else [*old, "x_other"]
    tree[section][name] = _OTHER.get(key, f"{old}x" if isinstance(old, str) else other)
    return Spec.parse(tree)


# --- steps


def steps_of_the_flow() -> dict[str, Step]:
    """Return every step of every module that the flow plans, as ``module.function``."""
    run = importlib.import_module("tasks.run")
    modules = sorted({call.name.split(".")[0] for call in run.planned(CUTOFF).calls})
    found = {}
    for module in modules:
        members = vars(importlib.import_module(f"tasks.{module}"))
        found |= {f"{module}.{name}": one for name, one in members.items() if isinstance(one, Step)}
    return found


def a_step(body: Callable[..., None], *reads: str, name: str = "measure") -> Step:
    """Return a step with this body."""
    return Step(name, body, reads)


def write_two_tables(work: Work, **_: Any) -> None:
    """Write a record and two tables: four puts with the manifest."""
    work.write("a", pl.DataFrame({"n": list(range(100))}))
    work.write("b", pl.DataFrame({"s": ["x", "y"]}))
    work.record |= {"answer": 42}
    work.rows = 102


def two_tables(root: str | Path, **inputs: Any) -> Artifact:
    """Run the step above in a root and return what it wrote."""
    store = Store(str(root))
    return store.open(a_step(write_two_tables)(store=store, spec=a_spec(), **inputs))


def a_record(store: Store, step: str, record: Mapping[str, Any]) -> str:
    """Publish an artifact that has nothing but a record, and return its URI."""
    return published(store, step, record, {}).uri


class Killed(BaseException):
    """What a run dies of in these tests; nothing may catch it."""


@contextmanager
def dying_at_put(number: int, *, landed: bool) -> Iterator[list[str]]:
    """Die at the n-th put of a folder, before or after it landed; yields the keys that were asked for."""
    asked: list[str] = []
    real = blobs.FolderBlobs.put_if_absent

    def put(self: blobs.FolderBlobs, key: str, content: bytes | Path) -> bool:
        asked.append(key)
        if len(asked) == number:
            if landed:
                real(self, key, content)
            raise Killed
        return real(self, key, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blobs.FolderBlobs, "put_if_absent", put)
        yield asked


def everything_below(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# --- code


@contextmanager
def project_of(folder: Path, files: Mapping[str, str]) -> Iterator[None]:
    """Let the code's hash read this project instead of ours."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "PROJECT", folder)
        forget_code()
        try:
            yield
        finally:
            forget_code()


def forget_code() -> None:
    """Forget what was read of the code."""
    for cached in (code.closure, code.code_hash, code.library_versions, code._imports, code._tree, code._meaning):
        cached.cache_clear()


# --- logs


def at(seconds: float = 0.0, *, days: int = 0, microseconds: int = 0) -> datetime:
    """Return a moment after the first day's start."""
    return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=days, seconds=seconds, microseconds=microseconds)


def published(store: Store, step: str, record: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> Artifact:
    """Publish an artifact of a step with this record and these tables."""
    said = {name: [frame.columns, [str(row) for row in frame.rows()]] for name, frame in tables.items()}
    name = fingerprint_of([step, dict(record), said])
    folder = Path(store.root) / "made" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_bytes(canonical(dict(record)))
    for table, frame in tables.items():
        frame.write_parquet(folder / f"{table}.parquet")
    return store.publish(step, name, folder, made_from={}, measured={})


def a_log(root: Path, *days: Mapping[str, pl.DataFrame], gone: Iterable[tuple[Any, ...]] = ()) -> Log:
    """Return the log of these days; ``gone`` lists (day, table, row, reason)."""
    store = Store(str(root))
    entries = []
    for number, tables in enumerate(days):
        day = (FIRST + timedelta(days=number)).isoformat()
        entries.append({"day": day, "fingerprint": published(store, "ingest", {"day": day}, tables).fingerprint})
    frame = pl.DataFrame(list(gone), schema=GONE, orient="row")
    return Log.open(published(store, "resolve", {"days": entries}, {"gone": frame}), store)


def a_frame(schema: Mapping[str, Any], *rows: tuple[Any, ...]) -> pl.DataFrame:
    """Return a frame of rows."""
    return pl.DataFrame(list(rows), schema=dict(schema), orient="row")


def in_another_process(script: str, *arguments: str) -> list[str]:
    """Return the command that runs a script which can import these builders."""
    start = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom core.core_builders import *\n"
    return [sys.executable, "-c", start + script, *arguments]


def pretty(tree: Any) -> str:
    """Return JSON that a person would have written."""
    return json.dumps(tree, indent=2)
