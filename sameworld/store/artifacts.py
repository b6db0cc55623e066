"""Write-once artifacts, named by what they were made from.

``<root>/artifacts/<step>/<fingerprint>/`` holds files and ``manifest.json``, which is published last by one atomic
put-if-absent. The manifest alone may hold clocks, durations and memory; every other file depends on the fingerprint
only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from sameworld.records import Cannot, Refused
from sameworld.store.blobs import Blobs, open_blobs, sha256_of

RECORD = "record.json"
MANIFEST = "manifest.json"
_SEAL = "manifest_sha256"
_URI = re.compile(r"(?P<root>.+)/artifacts/(?P<step>[a-z_]+)/(?P<fingerprint>[0-9a-f]{64})")
Record = TypeVar("Record")


def canonical(tree: Any) -> bytes:
    """Return the one JSON form of a tree: sorted keys, no NaN."""
    return json.dumps(tree, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def fingerprint_of(tree: Any) -> str:
    """Return the SHA-256 of a tree's canonical form.

    >>> fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical(tree)).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A published artifact. Files are checked against their hashes when they are opened."""

    blobs: Blobs
    step: str
    fingerprint: str
    manifest: Mapping[str, Any]

    @property
    def uri(self) -> str:
        """Where it lies."""
        return f"{self.blobs.root}/{self._key}"

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files, sorted."""
        return tuple(sorted(self.manifest["files"]))

    @property
    def content_hash(self) -> str:
        """The hash over the names and bytes of its files: what a decision or an approval is about."""
        return fingerprint_of({name: file["sha256"] for name, file in self.manifest["files"].items()})

    @cached_property
    def record(self) -> dict[str, Any]:
        """The small JSON record that the step wrote."""
        record: dict[str, Any] = json.loads(self.path(RECORD).read_bytes())
        return record

    @property
    def cannot(self) -> Cannot | None:
        """The reason why there is no answer here, if that is what this artifact says."""
        return Cannot(str(self.record["cannot"])) if set(self.record) == {"cannot"} else None

    def path(self, name: str) -> Path:
        """Return a checked local path of one file."""
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise Refused(what=f"artifact {self.step} has no file {name!r}", wanted=", ".join(self.files))
        return self.blobs.local(f"{self._key}/{entry['stored_as']}", entry["sha256"])

    def scan(self, name: str, *, row_index: str | None = None) -> pl.LazyFrame:
        """Return a Parquet file as a lazy frame; ``row_index`` names a first column with each row's number in it."""
        return pl.scan_parquet(self.path(f"{name}.parquet"), row_index_name=row_index)

    def verify(self) -> Artifact:
        """Check every file against its hash."""
        for name in self.files:
            self.path(name)
        return self

    @property
    def _key(self) -> str:
        return f"artifacts/{self.step}/{self.fingerprint}"


class Store:
    """The artifacts below one root."""

    def __init__(self, root: str) -> None:
        self.blobs = open_blobs(root)

    @property
    def root(self) -> str:
        """The root as an absolute path or ``s3://`` URI."""
        return self.blobs.root

    def find(self, step: str, fingerprint: str) -> Artifact | None:
        """Return the published artifact, or None where there is none."""
        content = self.blobs.get(f"artifacts/{step}/{fingerprint}/{MANIFEST}")
        if content is None:
            return None
        return Artifact(self.blobs, step, fingerprint, _read_manifest(content, step, fingerprint))

    def open(self, uri: str, *, step: str | None = None) -> Artifact:
        """Open an artifact of this root by its URI.

        step : the step that it must come from; a URI of another step, another root or another shape is refused
            (URIs travel through places that can be edited by hand)
        """
        match = _URI.fullmatch(uri) if isinstance(uri, str) else None
        wanted = f"{self.root}/artifacts/{step or '<step>'}/<fingerprint>"
        if not match or match["root"] != self.root or (step and match["step"] != step):
            raise Refused(what="not a URI of an artifact of this root", got=repr(uri), wanted=wanted)
        artifact = self.find(match["step"], match["fingerprint"])
        if artifact is None:
            raise Refused(what="no such artifact", got=uri, remedy="run the day again: what is missing is made anew")
        return artifact

    def publish(
        self, step: str, fingerprint: str, folder: Path, *, made_from: Mapping[str, Any], measured: Mapping[str, Any]
    ) -> Artifact:
        """Publish a folder's files; of two racing writers the first manifest stands and both return it."""
        base = f"artifacts/{step}/{fingerprint}"
        files = {path.name: self._put_file(base, path) for path in sorted(folder.iterdir())}
        manifest = {"step": step, "fingerprint": fingerprint, **made_from, "files": files, **measured}
        self.blobs.put_if_absent(f"{base}/{MANIFEST}", _sealed(manifest))
        found = self.find(step, fingerprint)
        if found is None:
            raise Refused(what="a published artifact is gone", got=base, remedy="is something deleting in this root?")
        return found

    def _put_file(self, base: str, path: Path) -> dict[str, Any]:
        digest = sha256_of(path)
        stored_as = path.name
        if not self.blobs.put_if_absent(f"{base}/{stored_as}", path):
            taken = self.blobs.get(f"{base}/{stored_as}")
            # Left behind by a run that never published: other bytes stand under the name, so ours get their own.
            if taken is None or hashlib.sha256(taken).hexdigest() != digest:
                stored_as = f"{path.name}.{digest[:16]}"
                self.blobs.put_if_absent(f"{base}/{stored_as}", path)
        return {"sha256": digest, "bytes": path.stat().st_size, "stored_as": stored_as, **_shape(path)}


def artifact_at(uri: str, *, step: str | None = None) -> Artifact:
    """Open an artifact by its URI, whichever root it lies below."""
    match = _URI.fullmatch(uri) if isinstance(uri, str) else None
    if not match:
        raise Refused(what="not a URI of an artifact", got=repr(uri), wanted="<root>/artifacts/<step>/<fingerprint>")
    return Store(match["root"]).open(
        f"{Store(match['root']).root}/artifacts/{match['step']}/{match['fingerprint']}", step=step
    )


def _shape(path: Path) -> dict[str, Any]:
    if path.suffix != ".parquet":
        return {}
    frame = pl.scan_parquet(path)
    rows = frame.select(pl.len()).collect().item()
    return {"rows": rows, "schema": {name: str(kind) for name, kind in frame.collect_schema().items()}}


def read_record(store: Store, key: str, parse: Callable[[dict[str, Any]], Record]) -> Record | None:
    """Read a JSON record that was written once, or None where there is none; a damaged one is refused by its key."""
    content = store.blobs.get(key)
    if content is None:
        return None
    try:
        return parse(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(
            what="a record was changed after it was written",
            got=f"{store.root}/{key}",
            wanted="the JSON that was written there",
            remedy="put the original back: nothing else knows what it said",
        ) from None


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest's bytes with the hash over all that it says, so that no byte of it can change unseen."""
    return json.dumps({**manifest, _SEAL: fingerprint_of(manifest)}, indent=1, sort_keys=True).encode()


def _read_manifest(content: bytes, step: str, fingerprint: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(content)
        said = {name: value for name, value in manifest.items() if name != _SEAL}
        if said["step"] == step and said["fingerprint"] == fingerprint and _sealed(said) == content:
            return manifest
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise Refused(
        what="a manifest was changed after it was written",
        got=f"artifacts/{step}/{fingerprint}",
        wanted="the manifest of that fingerprint",
        remedy="delete the artifact's folder and run again: it is made anew",
    )
