"""What a step is: a function from artifacts to an artifact, run once for each fingerprint.

A step's fingerprint covers the code it runs, the spec keys that it names, the cutoff and its inputs' fingerprints.
It sees no other spec key: reading one that it did not name is an error, so a fingerprint can't be too small.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import polars as pl
import psutil

from sameworld.records import Cannot, Refused
from sameworld.spec import Spec, known_keys
from sameworld.store.artifacts import RECORD, Artifact, Store, canonical, fingerprint_of
from sameworld.store.code import code_hash, library_versions
from sameworld.store.local_files import disk_errors, lacks_room
from sameworld.store.made_by import open_input
from sameworld.store.times import parse_time, time_text

ROW_GROUP = 131_072
AT_ONCE = 2
NO_ROOM = "the root cannot be written"


class Content(Protocol):
    """Something from outside the store, such as a drop's day; its fingerprint covers its bytes."""

    @property
    def fingerprint(self) -> str:
        """The hash over its bytes."""


Thing = TypeVar("Thing")
Done = TypeVar("Done")
Input: TypeAlias = str | list[str] | Content
Opened: TypeAlias = Artifact | list[Artifact] | Content


class Made(NamedTuple):
    """A URI, and whether the artifact was there already."""

    uri: str
    reused: bool


@dataclass
class Work:
    """What a step's body gets: its inputs are parameters, everything else is here."""

    spec: Any
    spec_part: Mapping[str, Any]
    cutoff: datetime | None
    folder: Path
    store: Store
    whole_spec: Spec
    rows: int = 0
    record: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, frame: pl.DataFrame | pl.LazyFrame) -> None:
        """Write a table as ``<name>.parquet`` in the order given."""
        path = self.folder / f"{name}.parquet"
        lazy = frame.lazy()
        try:
            lazy.sink_parquet(
                path, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, engine="streaming"
            )
        except (OSError, pl.exceptions.ComputeError) as error:
            if not lacks_room(error):
                raise
            raise Refused(what=NO_ROOM, got=f"{error} ({path.name})", wanted="room and permission") from error

    def each(self, make: Callable[[Thing], Done], things: Iterable[Thing]) -> list[Done]:
        """Make something of each thing, several at once, and return what was made in the order of the things.

        While one part is read or written, another computes.
        """
        with ThreadPoolExecutor(at_once(self.whole_spec)) as pool:
            return list(pool.map(make, things))

    def part(self, made_by: Step, *, cutoff: str, **inputs: Input) -> Artifact:
        """Make (or reuse) a part of this step's table as an artifact of its own.

        Its keys must be among this step's own, or a change of the spec could miss the parts. An input that is a part
        itself is given as the artifact: by its URI it would be refused as no whole.
        """
        return self.store.open(made_by(store=self.store, spec=self.whole_spec, cutoff=cutoff, **inputs))

    @property
    def now(self) -> datetime:
        """The cutoff of a step that takes one."""
        if self.cutoff is None:
            raise Refused(what="this step takes no cutoff")
        return self.cutoff


@dataclass(frozen=True)
class Step:
    """A named, fingerprinted function; calling it returns the URI of what it wrote."""

    name: str
    body: Callable[..., None]
    reads: tuple[str, ...]

    def __call__(self, *, store: Store, spec: Spec, cutoff: str | None = None, **inputs: Input) -> str:
        """Run, or reuse what an earlier run with the same fingerprint wrote; return the artifact's URI.

        cutoff : an ISO time, or the URI of an artifact whose record has a ``cutoff``
        inputs : URIs of artifacts (or contents from outside), by the body's parameter names
        """
        return self.make(store=store, spec=spec, cutoff=cutoff, **inputs).uri

    def make(self, *, store: Store, spec: Spec, cutoff: str | None = None, **inputs: Input) -> Made:
        """Like calling the step, and say whether an earlier artifact was reused."""
        opened = {name: _open(store, name, value) for name, value in inputs.items()}
        moment = resolve_cutoff(store, cutoff)
        made_from = self._made_from(spec, moment, opened)
        fingerprint = fingerprint_of(made_from)
        found = store.find(self.name, fingerprint)
        if found is not None:
            return Made(found.verify().uri, reused=True)
        reason = moment if isinstance(moment, Cannot) else _first_cannot(opened)
        with scratch_folder(store) as folder:
            with measured() as cost:
                at = None if isinstance(moment, Cannot) else moment
                work = Work(narrowed(spec, self.reads), spec.part(self.reads), at, folder, store, spec)
                if reason is None:
                    self.body(work, **opened)
                else:
                    work.record = reason.as_record()
            with disk_errors(NO_ROOM, RECORD):
                (folder / RECORD).write_bytes(canonical(work.record))
            cost["rows"] = work.rows
            return Made(
                store.publish(self.name, fingerprint, folder, made_from=made_from, measured=cost).uri, reused=False
            )

    def _made_from(self, spec: Spec, moment: datetime | Cannot | None, opened: Mapping[str, Opened]) -> dict[str, Any]:
        cutoff = moment.as_record() if isinstance(moment, Cannot) else (time_text(moment) if moment else None)
        return {
            "step": self.name,
            "body": self.body.__name__,
            "code": code_hash(self.body.__module__),
            "libraries": library_versions(),
            "spec": spec.part(self.reads),
            "cutoff": cutoff,
            "inputs": {name: _fingerprints(value) for name, value in sorted(opened.items())},
        }


def step(*, reads: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Step]:
    """Make a step of a module's ``run``; the step is named after the module.

    reads : dotted spec keys (or whole sections) that can change the answer
    """
    known = {name for key in known_keys() for name in (key, key.split(".")[0])}
    if unknown := sorted(set(reads) - known):
        raise Refused(what="a step names a spec key that there is not", got=", ".join(unknown), wanted="a known key")

    def wrap(body: Callable[..., None]) -> Step:
        made = Step(body.__module__.rsplit(".", 1)[-1], body, reads)
        object.__setattr__(made, "__doc__", body.__doc__)
        return made

    return wrap


def at_once(spec: Spec) -> int:
    """Return how many parts of a table are made at once: each holds its own data in memory, so they are few."""
    return min(spec.engine.threads or os.cpu_count() or 1, AT_ONCE)


def resolve_cutoff(store: Store, cutoff: str | None) -> datetime | Cannot | None:
    """Read a cutoff given as a time, or as the URI of an artifact that found one (or found that there is none)."""
    if cutoff is None:
        return None
    if "/artifacts/" not in cutoff:
        return parse_time(cutoff)
    artifact = store.open(cutoff)
    if artifact.cannot is None and "cutoff" not in artifact.record:
        raise Refused(what="a cutoff from an artifact that found none", got=cutoff, wanted="a time, or a step's cutoff")
    return artifact.cannot or parse_time(str(artifact.record["cutoff"]))


def narrowed(spec: Spec, reads: tuple[str, ...]) -> SimpleNamespace:
    """Return the spec with the named keys only.

    >>> spec = Spec.parse({"label": {"gains": {"click": 1.0}, "target": "click"}})
    >>> narrowed(spec, ("label.target",)).label
    namespace(target='click')
    """
    tree = SimpleNamespace()
    for key in sorted(reads):
        section, _, name = key.partition(".")
        whole = getattr(spec, "checks" if section == "validate" else section)
        if not name:
            setattr(tree, section, whole)
            continue
        if section in reads:
            continue
        if not hasattr(tree, section):
            setattr(tree, section, SimpleNamespace())
        setattr(getattr(tree, section), name, getattr(whole, name))
    return tree


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Measure seconds and the highest resident memory of the block, sampled twenty times a second."""
    process, highest, over = psutil.Process(), [0], threading.Event()

    def sample() -> None:
        while True:
            highest[0] = max(highest[0], process.memory_info().rss)
            if over.wait(0.05):
                return

    sampler, cost = threading.Thread(target=sample, daemon=True), dict[str, Any]()
    started = time.perf_counter()
    sampler.start()
    try:
        yield cost
    finally:
        over.set()
        sampler.join()
        cost["seconds"] = round(time.perf_counter() - started, 3)
        cost["peak_mb"] = round(highest[0] / 2**20, 1)


@contextmanager
def scratch_folder(store: Store) -> Iterator[Path]:
    """Make a folder for an artifact in the making; it is removed when the block is over."""
    folder = store.blobs.scratch() / uuid.uuid4().hex
    with disk_errors(NO_ROOM, str(folder.parent)):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open(store: Store, name: str, value: Input) -> Opened:
    if isinstance(value, list):
        return [open_input(store, name, uri) for uri in value]
    return open_input(store, name, value) if isinstance(value, str) else value


def _fingerprints(value: Opened) -> str | list[str]:
    return [one.fingerprint for one in value] if isinstance(value, list) else value.fingerprint


def _first_cannot(opened: Mapping[str, Opened]) -> Cannot | None:
    for _, value in sorted(opened.items()):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Artifact) and one.cannot is not None:
                return one.cannot
    return None
