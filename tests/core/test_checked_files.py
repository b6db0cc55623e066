"""A file that was hashed before is not read again, unless anything about it changed or somebody else may have lied."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from sameworld.records import Refused
from sameworld.store import checked_files, local_files
from sameworld.store.local_files import verified


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", -1.0)
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"some rows")
    return path


def read_times(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note each file that is read for its hash."""
    read: list[Path] = []
    real = local_files.sha256_of
    monkeypatch.setattr(local_files, "sha256_of", lambda path: (read.append(path), real(path))[1])
    return read


def another_process() -> None:
    checked_files._CHECKED.clear()


HASH = hashlib.sha256(b"some rows").hexdigest()


def test_another_process_does_not_read_it_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_times(monkeypatch)
    for _ in range(3):
        assert verified(file, HASH) == file
        another_process()
    assert read == [file]


def test_fault_29_a_byte_that_changed_since_is_refused_though_size_and_time_of_writing_are_the_same(file: Path) -> None:
    verified(file, HASH)
    before = file.stat()
    file.write_bytes(b"some rowz")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    another_process()
    with pytest.raises(Refused, match=re.escape("labels.parquet was changed after it was written")):
        verified(file, HASH)


def test_a_memory_that_others_can_write_to_is_not_believed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified(file, HASH)
    (file.parent / "cache" / "checked").chmod(0o777)
    another_process()
    read = read_times(monkeypatch)
    verified(file, HASH)
    assert read == [file]


def test_a_file_that_was_just_written_is_remembered_by_this_process_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", 3600.0)
    verified(file, HASH)
    assert list((file.parent / "cache" / "checked").iterdir()) == []
