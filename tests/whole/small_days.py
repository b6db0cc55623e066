"""Builders of small drops and of whole days run on them; what costs seconds is built once a process."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
from worlds.drop_files import Shop
from worlds.hotels import HotelSearch, write_search
from worlds.market import Marketplace, write_marketplace
from worlds.news import NewsFeed, write_news_feed

from sameworld.sources.closed_loop_drop import write_drop
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.spec import Spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.parts import examples_of
from tasks import report
from tasks.report import Written
from tasks.run import run_day

Tree = dict[str, Any]
FAST: Tree = {"evaluate": {"replicates": 100, "at": [5]}, "train": {"max_rounds": 60}, "decide": {"metric": "ndcg@5"}}
COST = {"seconds", "peak_mb", "manifest_sha256"}
_HOLDER = tempfile.TemporaryDirectory(prefix="sameworld-whole-")


def fresh(name: str) -> Path:
    """Return a new empty folder's path, below the folder that goes when the process ends."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_HOLDER.name))


@functools.cache
def shop(name: str, seed: int = 6) -> Shop:
    """Write one of the three shops, small; nobody may change what it wrote."""
    out = fresh(name) / "drop"
    if name == "marketplace":
        return write_marketplace(out, Marketplace(seed=seed, days=22, requests_per_day=300))
    if name == "search":
        return write_search(out, HotelSearch(seed=seed, days=12, requests_per_day=200))
    return write_news_feed(out, NewsFeed(seed=seed, days=14, requests_per_day=300, users=300))


def tree_of(made: Shop, drop: Path | str | None = None) -> Tree:
    """Return the spec that the shop's facts make, as a TOML tree."""
    gains = {kind: 1.0 + place for place, kind in enumerate(made.kinds)}
    label = {"gains": gains, "target": made.target, "window_days": made.window_days, "segments": list(made.segments)}
    return {**FAST, "source": {"kind": "drop", "uri": str(drop or made.drop)}, "label": label}


def loop_tree(drop: Path | str, **label: Any) -> Tree:
    """Return the spec of a closed-loop world's drop."""
    kinds = {"click": 1.0, "purchase": 5.0}
    settled = {"gains": kinds, "target": "purchase", "window_days": 2, "segments": ["x_segment"], **label}
    return {**FAST, "source": {"kind": "drop", "uri": str(drop)}, "label": settled}


@functools.cache
def loop_drop(seed: int = 7, days: int = 14, requests_per_day: int = 150) -> Path:
    """Write a small closed-loop world's drop, fast to convert; nobody may change it."""
    out = fresh("loop") / "drop"
    sizes = {
        "requests_per_day": requests_per_day,
        "users": 150,
        "items": 60,
        "candidates": 8,
        "slots": 5,
        "candidates_share": 0.0,
    }
    quick = {"fast_delay_days": 0.25, "slow_delay_days": 1.0, "purchase_lag_hours": 2.0, "purchase_intercept": -0.6}
    world = WorldParameters(seed=seed, days=days, window_days=2.0, **sizes, **quick)  # type: ignore[arg-type]
    write_drop(out, world)
    return out


def copied(drop: Path) -> Path:
    """Copy a drop, to be spoiled."""
    out = fresh("copy") / "drop"
    shutil.copytree(drop, out)
    return out


def days_of(drop: Path) -> list[date]:
    """Return the drop's days, oldest first."""
    return sorted(date.fromisoformat(path.name.removeprefix("day=")) for path in drop.glob("day=*"))


def run(root: Path | str, tree: Tree, day: date | str, *, page: bool = False, only: str | None = None) -> Written:
    """Run one day of the whole flow, or ``only`` up to a step.

    The page is drawn (half of a small day's time) only where ``page`` asks for it.
    """
    with nullcontext() if page else patch.object(report, "render", lambda *_, **__: "not drawn"):
        return run_day(Store(str(root)), Spec.parse(tree), date.fromisoformat(str(day)), only=only)


@functools.cache
def shop_run(name: str) -> tuple[Path, Written]:
    """Run a shop's last day in a root of its own, page and all."""
    made, root = shop(name), fresh("root")
    return root, run(root, tree_of(made), made.days[-1], page=True)


def made_by(root: Path, written: Written, step: str) -> Artifact:
    """Open what a step of a run wrote."""
    uri = next(one["uri"] for one in written.report["steps"] if one["name"] == step)
    return Store(str(root)).open(uri)


def examples_with_truth(root: Path, written: Written, made: Shop) -> pl.DataFrame:
    """Return the training set beside the truth: ``relevance`` of the target, ``theta`` of the position."""
    truth = pl.DataFrame(
        {
            "request_id": made.truth.request_id,
            "item_id": made.truth.item_id,
            "relevance": made.truth.relevance[made.target],
            "theta": made.truth.examination[made.truth.position - 1],
        }
    )
    rows = examples_of(made_by(root, written, "assemble"), Store(str(root))).collect()
    return rows.join(truth, on=["request_id", "item_id"], how="left", maintain_order="left", validate="1:1")


def content(root: Path) -> dict[str, str]:
    """Return the hash of every file below artifacts/; of a manifest, without what it cost and its hash over that."""
    found = {}
    for path in sorted((root / "artifacts").rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(data)
                data = json.dumps({k: v for k, v in manifest.items() if k not in COST}).encode()
            found[str(path.relative_to(root))] = hashlib.sha256(data).hexdigest()
    return found


def whole_root(root: Path) -> dict[str, str]:
    """Return the hash of every file below a root but runs and scratch, clocks and all."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    kept = (path for path in files if path.relative_to(root).parts[0] not in {"runs", "scratch"})
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
