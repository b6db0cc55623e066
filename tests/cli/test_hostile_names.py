"""Names that try to leave the root: whatever takes a name refuses them in words, and nothing is written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from cli.terminal import drop, sameworld

PARTS = {"what", "got", "wanted", "remedy"}
HOSTILE = [
    "../x",
    "../../etc/passwd",
    "%2e%2e/x",
    "%2e%2e",
    "a\\b",
    "a#b",
    "a?b",
    "..",
    ".",
    "a/../../b",
    "/etc/passwd",
]
FINGERPRINT = "a" * 64
CLICK = ("--set", "label.gains={click=1.0}", "--set", "label.target=click")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    pl.DataFrame({"request_id": ["r"], "item_id": ["i"]}).write_parquet("candidates.parquet")
    return tmp_path / "root"


def refused(root: Path, *arguments: str) -> str:
    """Run a command that must refuse and write nothing below the root or beside it; return what it got."""
    before = sorted(root.parent.rglob("*"))
    said = sameworld(*arguments, "--root", root, "--json")
    assert (said.code, set(said.error)) == (2, PARTS)
    assert sorted(root.parent.rglob("*")) == before
    got: str = said.error["got"]
    return got


@pytest.mark.parametrize("name", HOSTILE)
def test_fault_53_a_run_a_model_a_spec_a_step_or_a_time_that_is_no_plain_name_is_refused(root: Path, name: str) -> None:
    for arguments in (
        ("show", name),
        ("score", "--model", name, "--in", "candidates.parquet", "--out", "out.parquet"),
        ("run", "--spec", name, "--day", "2026-03-01"),
        ("run", "--only", name, "--day", "2026-03-01", *CLICK, "--set", "source.uri=drop"),
        ("run", "--day", name, *CLICK, "--set", "source.uri=drop"),
        ("history", "--at", name),
    ):
        refused(root, *arguments)


@pytest.mark.parametrize(
    "uri",
    [
        "{root}/artifacts/calibrate/../calibrate/{hash}",
        "{root}/artifacts/calibrate/%2e%2e/{hash}",
        "{root}/artifacts/calibrate/{hash}/..",
        "{root}/artifacts/calibrate/{hash}#x",
        "{root}/artifacts/calibrate/{hash}?x",
        "{root}\\artifacts\\calibrate\\{hash}",
        "{root}/artifacts/resolve/{hash}",
        "{root}/artifacts/calibrate/{hash}",
        "file://elsewhere/artifacts/calibrate/{hash}",
        "http://elsewhere/artifacts/calibrate/{hash}",
    ],
)
def test_fault_53_a_bundles_uri_that_is_bent_is_refused(root: Path, uri: str) -> None:
    bent = uri.format(root=root, hash=FINGERPRINT)
    refused(root, "score", "--model", bent, "--in", "candidates.parquet", "--out", "out.parquet")


@pytest.mark.parametrize("view", ["a#b", "%2e%2e", "a\\b"])
def test_fault_53_a_view_whose_folder_has_no_plain_name_is_refused(root: Path, view: str) -> None:
    made, at = drop(root.parent / "drop", 3, ("click", 3), x_a=1.0), datetime(2026, 3, 1, tzinfo=UTC)
    (made / "day=2026-03-02" / "features" / view).mkdir(parents=True)
    rows = pl.DataFrame({"item_id": ["i1"], "available_at": [at], "arrived_at": [at], "v": [1.0]})
    rows.write_parquet(made / "day=2026-03-02" / "features" / view / "0.parquet")
    said = sameworld("run", "--day", "2026-03-03", "--root", root, *CLICK, "--set", f"source.uri={made}", "--json")
    assert (said.code, set(said.error)) == (2, PARTS)
    assert f"features.{view}" in said.error["got"].replace("\\\\", "\\")
    assert all(path.resolve().is_relative_to(root) for path in root.rglob("*"))


@pytest.mark.parametrize("name", ["../../x", "a\\b#%2e"])
def test_fault_53_an_id_in_a_row_is_a_value_and_never_a_path(root: Path, name: str) -> None:
    frame = pl.DataFrame({"request_id": [name, name], "item_id": [name, f"{name}{name}"]})
    frame.write_parquet(root.parent / "ids.parquet")
    made = drop(root.parent / "drop", 3, ("click", 3), x_a=1.0)
    for path in made.rglob("*.parquet"):
        rows = pl.read_parquet(path)
        rows.with_columns(pl.col("request_id", "item_id") + name).write_parquet(path)
    before = sorted(root.parent.glob("*"))
    said = sameworld("run", "--day", "2026-03-03", "--root", root, *CLICK, "--set", f"source.uri={made}", "--json")
    assert said.code == 0
    assert said.document["log"]["impressions"]["kept"] == 60
    assert sorted(root.parent.glob("*")) == before
