"""Where bytes lie: a folder or an S3 bucket, behind one small interface with put-if-absent.

Everything else in the store is built on ``put_if_absent``: it is the only write, and it is atomic on both.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from sameworld.records import NotYet, Refused

CHUNK = 1 << 20


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
    if scheme in ("", "file"):
        return FolderBlobs(Path(urlsplit(root).path if scheme else root))
    raise Refused(what="unknown kind of root", got=root, wanted="a folder or s3://bucket/prefix")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def safe_key(key: str) -> str:
    """Return ``key`` if it stays below the root; refuse ``..``, absolute paths, backslashes and the like.

    >>> safe_key("artifacts/label/ab12")
    'artifacts/label/ab12'
    """
    parts = PurePosixPath(key).parts
    bad = not parts or key.startswith("/") or ".." in parts or "\\" in key or "\0" in key or "#" in key or "%" in key
    if bad:
        raise Refused(what="a key leaves its root", got=repr(key), wanted="a plain relative path")
    return key


def verified(path: Path, sha256: str) -> Path:
    """Return ``path`` if its bytes have this hash; a flipped byte is refused."""
    got = sha256_of(path)
    if got != sha256:
        raise Refused(
            what=f"{path.name} was changed after it was written",
            got=f"hash {got[:12]}",
            wanted=f"hash {sha256[:12]}",
            remedy="delete the artifact's folder and run again: it is made anew",
        )
    return path


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # a file in the making is never written again, so both names may share it
    except OSError:
        shutil.copyfile(source, target)


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
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix (see ``Blobs``)."""
        base = self._path(prefix)
        found = (p.relative_to(self.folder).as_posix() for p in base.rglob("*") if p.is_file())
        return sorted(key for key in found if "/.aside-" not in f"/{key}")

    def local(self, key: str, sha256: str) -> Path:
        """Return the checked file (see ``Blobs``)."""
        path = self._path(key)
        if not path.exists():
            raise Refused(what="a file of an artifact is gone", got=key, wanted="the file its manifest names")
        return verified(path, sha256)

    def scratch(self) -> Path:
        """Return the folder for files in the making (see ``Blobs``)."""
        return self.folder / "scratch"

    def _path(self, key: str) -> Path:
        return self.folder / safe_key(key)

    @contextmanager
    def _written_aside(self, target: Path, content: bytes | Path) -> Iterator[Path]:
        aside = target.parent / f".aside-{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                _link_or_copy(content, aside)
            else:
                aside.write_bytes(content)
            yield aside
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            raise Refused(
                what="the root cannot be written", got=f"{error.strerror} ({target.name})", wanted="room and permission"
            ) from error
        finally:
            aside.unlink(missing_ok=True)


class S3Blobs:
    """A bucket and a prefix through boto3; single PUTs with ``If-None-Match: *``, reads through a checked cache."""

    def __init__(self, root: str) -> None:
        split = urlsplit(root)
        self.bucket, self.prefix = split.netloc, split.path.strip("/")
        self.root = f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        if not self.bucket:
            raise Refused(what="an S3 root without a bucket", got=root, wanted="s3://bucket/prefix")
        self._s3 = s3_client()
        self._probed = False

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """Write unless taken (see ``Blobs``)."""
        self._probe()
        return self._conditional_put(key, content)

    def put(self, key: str, content: bytes) -> None:
        """Write or overwrite (see ``Blobs``)."""
        with s3_errors(self.bucket):
            self._s3.put_object(Bucket=self.bucket, Key=self._key(key), Body=content)

    def get(self, key: str) -> bytes | None:
        """Return the bytes or None (see ``Blobs``)."""
        with s3_errors(self.bucket):
            try:
                return bytes(self._s3.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read())
            except self._s3.exceptions.NoSuchKey:
                return None

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix (see ``Blobs``)."""
        with s3_errors(self.bucket):
            base = self._key(prefix).rstrip("/") + "/"
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=base)
            found = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        cut = len(self.prefix) + 1 if self.prefix else 0
        return sorted(key[cut:] for key in found)

    def local(self, key: str, sha256: str) -> Path:
        """Return the checked file, fetched into the local cache if need be (see ``Blobs``)."""
        cached = cache_folder() / sha256[:2] / sha256
        if cached.exists():
            return verified(cached, sha256)
        cached.parent.mkdir(parents=True, exist_ok=True)
        aside = cached.with_name(f".aside-{uuid.uuid4().hex}")
        try:
            with s3_errors(self.bucket), aside.open("wb") as stream:
                body = self._s3.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
                shutil.copyfileobj(body, stream, CHUNK)
            verified(aside, sha256)
            aside.replace(cached)
        finally:
            aside.unlink(missing_ok=True)
        return cached

    def scratch(self) -> Path:
        """Return the folder for files in the making (see ``Blobs``)."""
        return cache_folder() / "scratch"

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{safe_key(key)}" if self.prefix else safe_key(key)

    def _conditional_put(self, key: str, content: bytes | Path) -> bool:
        from botocore.exceptions import ClientError

        with s3_errors(self.bucket):
            try:
                if isinstance(content, Path):
                    with content.open("rb") as stream:
                        self._s3.put_object(Bucket=self.bucket, Key=self._key(key), Body=stream, IfNoneMatch="*")
                else:
                    self._s3.put_object(Bucket=self.bucket, Key=self._key(key), Body=content, IfNoneMatch="*")
            except ClientError as error:
                # 409 is AWS's answer to two writers under way: somebody else is writing the same key.
                if error.response["Error"]["Code"] in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
                    return False
                raise
        return True

    def _probe(self) -> None:
        """Refuse a server that ignores ``If-None-Match``: two runs could both believe that they published."""
        if self._probed:
            return
        self._conditional_put("probe", b"sameworld")
        if self._conditional_put("probe", b"sameworld"):
            raise Refused(
                what="this S3 server ignores If-None-Match",
                got=f"two writers won the same key in {self.bucket}",
                wanted="a server with conditional writes",
            )
        self._probed = True


def s3_client() -> Any:
    """Return a boto3 client with bounded retries; endpoint and credentials come from the environment."""
    import boto3
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
    return boto3.client("s3", config=config)


@contextmanager
def s3_errors(bucket: str) -> Iterator[None]:
    """Turn boto3's errors into ours: what a retry can help is ``NotYet``, the rest is ``Refused``; no key is shown."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if status >= 500 or code in ("SlowDown", "RequestTimeout"):
            raise NotYet(what=f"bucket {bucket} does not answer", got=code, remedy="try again") from None
        raise Refused(
            what=f"bucket {bucket} refused the request", got=code, remedy="check it exists and the role"
        ) from None
    except BotoCoreError as error:
        kind = type(error).__name__
        if "Credentials" in kind:
            raise Refused(
                what=f"no valid credentials for bucket {bucket}", got=kind, wanted="AWS credentials"
            ) from None
        raise NotYet(what=f"bucket {bucket} cannot be reached", got=kind, remedy="try again") from None


def cache_folder() -> Path:
    """Return the folder of verified local copies of remote files (``SAMEWORLD_CACHE``, else the temporary folder's)."""
    chosen = os.environ.get("SAMEWORLD_CACHE")
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"sameworld-cache-{os.getuid()}"
