"""Where bytes lie: a folder or an S3 bucket, behind one small interface with put-if-absent.

Everything else in the store is built on ``put_if_absent``: it is the only write, and it is atomic on both.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from sameworld.records import Refused
from sameworld.store.checked_files import cache_folder
from sameworld.store.local_files import (
    CHUNK,
    disk_errors,
    link_or_copy,
    safe_key,
    sha256_of,
    verified,
)
from sameworld.store.s3 import S3Blobs, s3_client, s3_errors

__all__ = [
    "CHUNK",
    "Blobs",
    "FolderBlobs",
    "S3Blobs",
    "cache_folder",
    "open_blobs",
    "s3_client",
    "s3_errors",
    "safe_key",
    "sha256_of",
    "verified",
]
_ASIDE = ".aside-"


class Blobs(Protocol):
    """Named byte strings that are written once."""

    root: str

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """Write the bytes (or the file) under ``key`` unless it is taken; return whether this call wrote it."""

    def put(self, key: str, content: bytes) -> None:
        """Write or overwrite: only for what lies outside the artifacts, such as a run's page."""

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None where there are none."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, sorted."""

    def local(self, key: str, sha256: str) -> Path:
        """Return a local file with these bytes, checked against their hash."""

    def scratch(self) -> Path:
        """Return a local folder for files in the making, on the root's own disk where there is one."""


def open_blobs(root: str) -> Blobs:
    """Open ``root``: ``s3://bucket/prefix``, ``file:///path`` or a folder's path."""
    scheme = urlsplit(root).scheme
    if scheme == "s3":
        return S3Blobs(root)
    if scheme in ("", "file") and root:
        return FolderBlobs(Path(unquote(urlsplit(root).path) if scheme else root))
    raise Refused(what="unknown kind of root", got=repr(root), wanted="a folder or s3://bucket/prefix")


class FolderBlobs:
    """A folder. A file appears whole or not at all: written aside, then linked into place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.root = str(self.folder)

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """Write unless taken (see ``Blobs``)."""
        target = self._path(key)
        if target.exists():
            return False
        with self._written_aside(target, content) as aside:
            try:
                os.link(aside, target)
            except FileExistsError:
                return False
        return True

    def put(self, key: str, content: bytes) -> None:
        """Write or overwrite (see ``Blobs``)."""
        target = self._path(key)
        with self._written_aside(target, content) as aside:
            aside.replace(target)

    def get(self, key: str) -> bytes | None:
        """Return the bytes or None (see ``Blobs``)."""
        with disk_errors("the root cannot be read", key):
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix (see ``Blobs``)."""
        base = self._path(prefix)
        found = (p.relative_to(self.folder).as_posix() for p in base.rglob("*") if p.is_file())
        return sorted(key for key in found if f"/{_ASIDE}" not in key)

    def local(self, key: str, sha256: str) -> Path:
        """Return the checked file (see ``Blobs``)."""
        path = self._path(key)
        if not path.exists():
            raise Refused(what="a file of an artifact is gone", got=key, wanted="the file its manifest names")
        with disk_errors("the root cannot be read", key):
            return verified(path, sha256, name=key)

    def scratch(self) -> Path:
        """Return the folder for files in the making (see ``Blobs``)."""
        return self.folder / "scratch"

    def _path(self, key: str) -> Path:
        path = self.folder / safe_key(key)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise Refused(
                what="a symbolic link leads out of the root", got=key, remedy="let the root itself be the link"
            )
        return path

    @contextmanager
    def _written_aside(self, target: Path, content: bytes | Path) -> Iterator[Path]:
        aside = target.parent / f"{_ASIDE}{uuid.uuid4().hex}"
        try:
            with disk_errors("the root cannot be written", target.name):
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    link_or_copy(content, aside)
                else:
                    aside.write_bytes(content)
                yield aside
        finally:
            with suppress(OSError):
                aside.unlink()
