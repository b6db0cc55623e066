"""What every test of a source has of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep mapped rows in a folder of the test's own."""
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
