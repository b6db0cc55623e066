"""Folders that are written once, beside every root: aside first, then renamed into place."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def make_once(folder: Path, write: Callable[[Path], object]) -> Path:
    """Return the folder, written by ``write`` if it is not there; of two runs that write it the first stands."""
    if not folder.exists():
        aside = folder.with_name(f".aside-{uuid.uuid4().hex}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(aside)
            _rename_unless_there(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _rename_unless_there(aside: Path, folder: Path) -> None:
    try:
        aside.rename(folder)
    except OSError:
        if not folder.exists():  # another run wrote the same folder first: theirs stands
            raise
