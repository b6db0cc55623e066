"""Which local files have been hashed already, so that each process of a day does not read the whole log again.

What is remembered lies in the cache, outside every root: losing it costs time, never an answer. It is believed only in
a folder that nobody else can write to, and only for a file whose inode, size and times are still the same.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

# A file this young could be written again within its timestamp's grain, so its hash is remembered in this process only.
SETTLED_SECONDS = 2.0
_OTHERS_MAY_WRITE = 0o022
_CHECKED: dict[Path, str] = {}


def looks(path: Path) -> str:
    """Return what changes when a file does: its inode, size, and times of writing and of change."""
    found = path.stat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def checked_before(path: Path, sha256: str) -> bool:
    """Say whether these very bytes are known to have this hash."""
    told = f"{looks(path)} {sha256}"
    if _CHECKED.get(path) == told:
        return True
    folder = _folder()
    if folder is None:
        return False
    with suppress(OSError):
        if (folder / _name(path)).read_bytes() == os.fsencode(told):
            _CHECKED[path] = told
            return True
    return False


def note_checked(path: Path, sha256: str, seen: str) -> None:
    """Remember a file's hash; ``seen`` is how it looked before it was read."""
    if looks(path) != seen:
        return
    _CHECKED[path] = f"{seen} {sha256}"
    folder = _folder()
    if folder is None or time.time() - path.stat().st_ctime < SETTLED_SECONDS:
        return
    with suppress(OSError):  # a full or read-only cache costs time only
        aside = folder / f".aside-{uuid.uuid4().hex}"
        aside.write_bytes(os.fsencode(_CHECKED[path]))
        aside.replace(folder / _name(path))


def cache_folder() -> Path:
    """Return the folder of verified local copies of remote files (``SAMEWORLD_CACHE``, else the temporary folder's)."""
    chosen = os.environ.get("SAMEWORLD_CACHE")
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"sameworld-cache-{os.getuid()}"


def _name(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()


def _folder() -> Path | None:
    """Return where hashes are remembered, or None where somebody else could write there."""
    folder = cache_folder() / "checked"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError:
        return None
    return folder if found.st_uid == os.getuid() and not found.st_mode & _OTHERS_MAY_WRITE else None
