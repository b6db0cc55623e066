"""Remembers hashes of files that have not changed, so that a daily run does not read the whole drop again.

The memo lies in the cache, outside every root: losing it costs time, never an answer.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid

from sameworld.store.blobs import cache_folder

# A file this young could be written again within its timestamp's grain, so its hash is not remembered.
SETTLED_SECONDS = 2.0


class HashMemo:
    """The hashes of one drop's files, by name and mark (what changes when the content does)."""

    def __init__(self, uri: str) -> None:
        self._path = cache_folder() / "hashes" / f"{hashlib.sha256(uri.encode()).hexdigest()}.json"
        self._known = self._load()
        self._changed = False

    def get(self, name: str, mark: str) -> str | None:
        """Return the remembered hash, or None."""
        known, digest = self._known.get(name, ("", ""))
        return digest if known == mark else None

    def note(self, name: str, mark: str, digest: str, *, changed_at: float) -> None:
        """Remember a hash, unless the file was changed (seconds since 1970) just now."""
        if self.get(name, mark) is None and time.time() - changed_at > SETTLED_SECONDS:
            self._known[name] = (mark, digest)
            self._changed = True

    def save(self) -> None:
        """Write what is new; of two runs that save at once the later stands."""
        if not self._changed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(f".aside-{uuid.uuid4().hex}")
        aside.write_text(json.dumps(self._known), encoding="utf-8")
        aside.replace(self._path)
        self._changed = False

    def _load(self) -> dict[str, tuple[str, str]]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(name): (str(mark), str(digest)) for name, (mark, digest) in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
