"""Local files under keys: hashes that are checked, keys that stay below their root, disk errors as typed ones."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sameworld.records import Refused
from sameworld.store.checked_files import checked_before, looks, note_checked

CHUNK = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def safe_key(key: str) -> str:
    """Return ``key`` if it stays below the root; refuse ``..``, absolute paths, backslashes and the like.

    A key has one spelling only, on a folder as on S3: ``a//b``, ``a/./b`` and ``a/`` are refused too.

    >>> safe_key("artifacts/label/ab12")
    'artifacts/label/ab12'
    """
    path = PurePosixPath(key)
    bad = not path.parts or path.is_absolute() or ".." in path.parts or str(path) != key
    if bad or not key.isprintable() or any(sign in key for sign in "\\#%?"):
        raise Refused(what="a key leaves its root", got=repr(key), wanted="a plain relative path")
    return key


def verified(path: Path, sha256: str, *, name: str = "") -> Path:
    """Return ``path`` if its bytes have this hash; a flipped byte is refused.

    name : what to call the file in the error (default: its file name)
    A file that has been hashed on this machine before, and whose inode, size and times are the same, is not read again.
    """
    if checked_before(path, sha256):
        return path
    seen, got = looks(path), sha256_of(path)
    if got != sha256:
        raise Refused(
            what=f"{name or path.name} was changed after it was written",
            got=f"hash {got[:12]}",
            wanted=f"hash {sha256[:12]}",
            remedy="delete the artifact's folder and run again: it is made anew",
        )
    note_checked(path, sha256, seen)
    return path


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk cannot link."""
    try:
        os.link(source, target)  # a file in the making is never written again, so both names may share it
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def disk_errors(what: str, name: str, *, wanted: str = "room and permission") -> Iterator[None]:
    """Turn an error of the disk (full, read-only, broken) into ``Refused``; ``name`` says which file."""
    try:
        yield
    except OSError as error:
        raise Refused(what=what, got=f"{error.strerror or type(error).__name__} ({name})", wanted=wanted) from error


def lacks_room(error: Exception) -> bool:
    """Say whether an error means that nothing more can be written here; Polars gives the number in its text only.

    >>> lacks_room(OSError(errno.ENOSPC, "No space left on device"))
    True
    >>> lacks_room(ValueError("not a Parquet file"))
    False
    """
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return any(f"(os error {number})" in str(error) for number in _NO_ROOM)
