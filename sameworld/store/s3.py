"""A bucket and a prefix through boto3: single PUTs with ``If-None-Match: *``, reads through a checked local cache."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from sameworld.records import NotYet, Refused
from sameworld.store.checked_files import cache_folder
from sameworld.store.local_files import CHUNK, disk_errors, safe_key, sha256_of, verified

# AWS answers 409 while another writer of the same key is under way: whether that one lands is known a little later.
CONFLICT_PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0)


class S3Blobs:
    """Objects below ``s3://bucket/prefix`` (see ``sameworld.store.blobs.Blobs``)."""

    def __init__(self, root: str) -> None:
        split = urlsplit(root)
        self.bucket, self.prefix = split.netloc, split.path.strip("/")
        if not self.bucket or "@" in self.bucket or split.query or split.fragment:
            raise Refused(what="an S3 root cannot be read", got=_without_secret(root), wanted="s3://bucket/prefix")
        self.root = f"s3://{self.bucket}" + (f"/{safe_key(self.prefix)}" if self.prefix else "")
        with s3_errors(self.bucket):
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
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self._key(prefix)}/"
            )
            found = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        cut = len(self.prefix) + 1 if self.prefix else 0
        return sorted(key[cut:] for key in found)

    def local(self, key: str, sha256: str) -> Path:
        """Return the checked file, fetched into the local cache if need be (see ``Blobs``)."""
        cached = cache_folder() / sha256[:2] / sha256
        with disk_errors("the local cache cannot be used", str(cache_folder())):
            # A copy that was damaged here is no word against the object: it is fetched again.
            if not cached.exists() or sha256_of(cached) != sha256:
                self._fetch(key, sha256, cached)
        return cached

    def scratch(self) -> Path:
        """Return the folder for files in the making (see ``Blobs``)."""
        return cache_folder() / "scratch"

    def _fetch(self, key: str, sha256: str, cached: Path) -> None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        aside = cached.with_name(f".aside-{uuid.uuid4().hex}")
        try:
            with s3_errors(self.bucket), aside.open("wb") as stream:
                shutil.copyfileobj(self._body(key), stream, CHUNK)
            verified(aside, sha256, name=key)
            aside.replace(cached)
        finally:
            aside.unlink(missing_ok=True)

    def _body(self, key: str) -> IO[bytes]:
        try:
            body: IO[bytes] = self._s3.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
            return body
        except self._s3.exceptions.NoSuchKey:
            raise Refused(what="a file of an artifact is gone", got=key, wanted="the file its manifest names") from None

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{safe_key(key)}" if self.prefix else safe_key(key)

    def _conditional_put(self, key: str, content: bytes | Path) -> bool:
        for pause in CONFLICT_PAUSES:
            time.sleep(pause)
            with s3_errors(self.bucket):
                written = self._put_once(key, content)
            if written is not None:
                return written
        raise NotYet(what=f"bucket {self.bucket} does not settle", got=f"another writer at {key}", remedy="try again")

    def _put_once(self, key: str, content: bytes | Path) -> bool | None:
        from botocore.exceptions import ClientError

        with content.open("rb") if isinstance(content, Path) else BytesIO(content) as stream:
            try:
                self._s3.put_object(Bucket=self.bucket, Key=self._key(key), Body=stream, IfNoneMatch="*")
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("PreconditionFailed", "412"):
                    return False
                if code in ("ConditionalRequestConflict", "409"):
                    return None
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

    config = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10, read_timeout=60)
    try:
        return boto3.client("s3", config=config)
    except ValueError:  # botocore says so of an endpoint that is no URL, and repeats it with whatever it holds
        raise Refused(
            what="no S3 client", got="an endpoint that is no URL", wanted="AWS_ENDPOINT_URL=http(s)://host"
        ) from None


@contextmanager
def s3_errors(bucket: str) -> Iterator[None]:
    """Turn boto3's errors into ours: what a retry can help is ``NotYet``, the rest is ``Refused``; no key is shown."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of_answer(bucket, error.response) from None
    except BotoCoreError as error:
        raise _of_client(bucket, error) from None


def _of_answer(bucket: str, response: Any) -> NotYet | Refused:
    code, status = response["Error"]["Code"], response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # 501 is an answer: the server lacks what was asked for, and will lack it the next time.
    if (status >= 500 and status != 501) or status == 429 or code in ("SlowDown", "RequestTimeout", "Throttling"):
        return NotYet(what=f"bucket {bucket} does not answer", got=code, remedy="try again")
    return Refused(what=f"bucket {bucket} refused the request", got=code, remedy="check it exists and the role")


def _of_client(bucket: str, error: Exception) -> NotYet | Refused:
    from botocore import exceptions as of_boto

    kind = type(error).__name__
    if isinstance(error, of_boto.HTTPClientError | of_boto.ConnectionError | of_boto.IncompleteReadError):
        return NotYet(what=f"bucket {bucket} cannot be reached", got=kind, remedy="try again")
    if "Credential" in kind or "Token" in kind:
        return Refused(what=f"no valid credentials for bucket {bucket}", got=kind, wanted="AWS credentials")
    return Refused(what=f"bucket {bucket} cannot be asked", got=kind, remedy="check its name and the AWS settings")


def _without_secret(root: str) -> str:
    return repr(root) if "@" not in root else "a root with a user name or a key in it"
