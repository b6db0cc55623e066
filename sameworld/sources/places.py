"""Where a drop can lie: a folder, or a bucket's prefix; both list names and give local files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from sameworld.records import Blocked, Refused
from sameworld.store.blobs import CHUNK, cache_folder, s3_client, s3_errors, sha256_of, verified


class Listed(NamedTuple):
    """A file of a drop as it is listed: its name below the drop, what changes when its content does, and when it did.

    changed_at : seconds since 1970
    """

    name: str
    mark: str
    changed_at: float


class Place(Protocol):
    """Where a drop lies."""

    uri: str

    def names(self, folder: str) -> Iterable[str]:
        """Return the names directly below a folder of the drop."""

    def files(self, folder: str) -> list[Listed]:
        """Return every file below a folder of the drop, at any depth."""

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes."""

    def local(self, name: str, sha256: str) -> Path:
        """Return a local file with these bytes."""


def place_of(uri: str) -> Place:
    """Return the place that a URI names: a folder's path, ``file://`` or ``s3://``."""
    if not uri:
        raise Refused(what="no drop was named", got="source.uri is empty", wanted="a folder or s3://bucket/prefix",
                      remedy="--set source.uri=/path/to/drop")  # fmt: skip
    split = urlsplit(uri)
    if split.scheme == "s3":
        return Bucket(uri)
    if split.scheme == "file":
        return Folder(Path(unquote(split.path)))
    if split.scheme and "://" in uri:
        raise Refused(what="unknown kind of drop", got=uri, wanted="a folder, file:// or s3://bucket/prefix")
    return Folder(Path(uri))


class Folder:
    """A drop in a folder; a symbolic link that leaves it is refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute().resolve()
        self.uri = str(self._folder)
        if not self._folder.is_dir():
            raise Refused(what="there is no such drop", got=str(folder), wanted="a folder with day=YYYY-MM-DD in it",
                          remedy="check source.uri")  # fmt: skip

    def names(self, folder: str) -> list[str]:
        """Return what lies directly below (see ``Place``)."""
        place = self._inside(folder)
        return sorted(path.name for path in place.iterdir()) if place.is_dir() else []

    def files(self, folder: str) -> list[Listed]:
        """Return every file below (see ``Place``); changed bytes show in size, inode or times."""
        found = []
        for path in sorted(self._inside(folder).rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            inside = self._inside(name)
            if inside.is_file():
                stat = inside.stat()
                mark = f"{stat.st_size}-{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
                found.append(Listed(name, mark, max(stat.st_mtime, stat.st_ctime)))
        return found

    def sha256(self, name: str) -> str:
        """Hash a file (see ``Place``)."""
        try:
            return sha256_of(self._inside(name))
        except OSError as error:
            raise Blocked(what=f"{name} cannot be read: {error.strerror}") from None

    def local(self, name: str, sha256: str) -> Path:  # noqa: ARG002  # read in place; only a copy needs the hash
        """Return the file itself (see ``Place``)."""
        return self._inside(name)

    def _inside(self, name: str) -> Path:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise Refused(what="a symbolic link leaves the drop", got=name, wanted="files inside the drop",
                          remedy="copy the file into the drop")  # fmt: skip
        return path


class Bucket:
    """A drop below a bucket's prefix; a file is fetched once into the cache of verified copies."""

    def __init__(self, uri: str) -> None:
        split = urlsplit(uri)
        self._bucket, self._prefix = split.netloc, split.path.strip("/")
        if not self._bucket:
            raise Refused(what="a drop without a bucket", got=uri, wanted="s3://bucket/prefix")
        self.uri = f"s3://{self._bucket}" + (f"/{self._prefix}" if self._prefix else "")
        self._s3 = s3_client()
        if not self._prefixes("") and not self.files(""):
            raise Refused(what="there is no such drop", got=self.uri, wanted="a prefix with day=YYYY-MM-DD/ below it",
                          remedy="check source.uri")  # fmt: skip

    def names(self, folder: str) -> list[str]:
        """Return what lies directly below (see ``Place``)."""
        return self._prefixes(folder)

    def files(self, folder: str) -> list[Listed]:
        """Return every file below (see ``Place``); changed bytes show in the ETag."""
        base = self._key(folder)
        cut = len(self._key(""))
        entries = [entry for page in self._pages(base, "") for entry in page.get("Contents", ())]
        return [
            Listed(entry["Key"][cut:], f"{entry['Size']}-{entry['ETag']}", 0.0)
            for entry in entries
            if not entry["Key"].endswith("/")
        ]

    def sha256(self, name: str) -> str:
        """Fetch a file and hash it (see ``Place``)."""
        aside = cache_folder() / f".aside-{uuid.uuid4().hex}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with s3_errors(self._bucket), aside.open("wb") as stream:
                body = self._s3.get_object(Bucket=self._bucket, Key=self._key("") + name)["Body"]
                shutil.copyfileobj(body, stream, CHUNK)
            digest = sha256_of(aside)
            cached = _cached(digest)
            cached.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(cached)
        finally:
            aside.unlink(missing_ok=True)
        return digest

    def local(self, name: str, sha256: str) -> Path:
        """Return the copy with these bytes, fetched again where it is gone (see ``Place``)."""
        cached = _cached(sha256)
        if not cached.exists():
            got = self.sha256(name)
            if got != sha256:
                raise Refused(what=f"{name} changed while it was read", got=got[:12], wanted=sha256[:12],
                              remedy="run again once its exporter is done")  # fmt: skip
        return verified(cached, sha256)

    def _key(self, folder: str) -> str:
        return "".join(f"{part}/" for part in (self._prefix, folder) if part)

    def _pages(self, base: str, delimiter: str) -> list[dict[str, Any]]:
        with s3_errors(self._bucket):
            return list(
                self._s3.get_paginator("list_objects_v2").paginate(
                    Bucket=self._bucket, Prefix=base, Delimiter=delimiter
                )
            )

    def _prefixes(self, folder: str) -> list[str]:
        base = self._key(folder)
        pages = self._pages(base, "/")
        folders = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        files = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return sorted(name for path in (*folders, *files) if (name := path[len(base) :].strip("/")))


def _cached(sha256: str) -> Path:
    return cache_folder() / sha256[:2] / sha256
