"""What every command owes its caller: exit codes, a clean stdout, and errors in four parts."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from cli.terminal import FIRST, Said, drop, outcomes, sameworld, shown

from sameworld.sources.landing import land
from tasks.cli import show as show_command
from tasks.cli.console import Answer, say

CLICK = ("label.gains={click=1.0}", "label.target=click")
PARTS = {"what", "got", "wanted", "remedy"}


def run(uri: Path, root: Path, *more: str, day: str = "2026-03-03") -> Said:
    return sameworld("run", "--day", day, "--root", root, "--set", f"source.uri={uri}", "--json", *more)


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--day", "tomorrow"),
        ("run", "--dya", "2026-03-01"),
        ("run", "--day", "2026-03-01", "--spec", "basline"),
        ("run", "--day", "2026-03-01", "--set", "trian.days=3"),
        ("run", "--day", "2026-03-01", "--set", "train.days"),
        ("run", "--day", "2026-03-01", "--set", "train.days=soon"),
        ("run", "--day", "2026-03-01"),
        ("run", "--day", "2026-03-01", "--set", "source.uri=/no/such/drop"),
        ("backfill", "--from", "2026-03-02", "--to", "2026-03-01"),
        ("history", "--at", "2026-03-01T00:00:00"),
        ("show", "2026-03-01-nothing"),
        ("show",),
        ("score", "--model", "champion", "--in", "a", "--out", "a"),
        ("score", "--model", "champion", "--in", "a", "--out", "b", "--tau", "soon"),
        ("init", "--drop", "/no/such/drop", "--out", "s.toml"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_bad_usage_exits_2_with_the_four_parts(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = sameworld(*arguments, "--json")
    assert (said.code, set(said.error)) == (2, PARTS)
    assert said.error["what"]
    assert said.error["got"] or said.error["wanted"]
    assert said.error["remedy"]
    assert "Traceback" not in said.err + said.out
    assert not list(tmp_path.iterdir())


def test_without_json_an_error_is_words_on_stderr(tmp_path: Path) -> None:
    said = sameworld("run", "--day", "2026-03-01", "--set", "trian.days=3", "--root", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines() == [
        "sameworld: unknown spec key",
        "  got:    'trian'",
        "  wanted: 'train' (the nearest known)",
        "  remedy: every key is described in experiments/baseline.toml",
    ]


def test_a_day_that_is_not_there_yet_exits_3_and_writes_nothing(tmp_path: Path) -> None:
    said = run(drop(tmp_path / "drop", 2, ("click", 3), x_a=1.5), tmp_path / "root")
    assert (said.code, said.error["what"]) == (3, "day 2026-03-03 of the drop is not there yet")
    assert not (tmp_path / "root").exists()


def test_fault_19_naive_timestamps_are_refused_with_the_remedy(tmp_path: Path) -> None:
    rows = shown(0, x_a=1.5).with_columns(pl.col("shown_at").dt.replace_time_zone(None))
    land({"impressions": rows}, tmp_path / "drop", FIRST)
    said = run(tmp_path / "drop", tmp_path / "root", day="2026-03-01")
    assert (said.code, said.error["remedy"]) == (2, "write them with tz=UTC")
    assert "'shown_at' has timestamps without a zone" in said.error["what"]


def test_text_where_numbers_were_promised_blocks_the_day_and_still_writes_a_report(tmp_path: Path) -> None:
    rows = shown(0).with_columns(pl.col("position").cast(pl.String))
    land({"impressions": rows, "outcomes": outcomes(shown(0), "click", 3)}, tmp_path / "drop", FIRST)
    said = run(tmp_path / "drop", tmp_path / "root", day="2026-03-01")
    decision = said.document["decision"]
    assert (said.code, decision["outcome"]) == (1, "HOLD")
    assert "column 'position' has a wrong type: got string; wanted int32" in decision["reasons"][0]
    assert "not reached" in said.document["labels"]["cannot"]
    assert list((tmp_path / "root" / "runs").glob("2026-03-01-*/report.html"))


def test_fault_02_a_truncated_file_blocks_the_day_by_its_name(tmp_path: Path) -> None:
    source = drop(tmp_path / "drop", 1, ("click", 3), x_a=1.5)
    file = next(source.glob("day=*/impressions/*.parquet"))
    file.write_bytes(file.read_bytes()[:-20])
    said = sameworld("run", "--day", "2026-03-01", "--root", tmp_path / "root", "--set", f"source.uri={source}")
    assert said.code == 1
    assert said.out.startswith(" HOLD (blocked)  2026-03-01")
    assert "day=2026-03-01/impressions/part-0.parquet is no readable Parquet file" in said.out
    assert said.out.splitlines()[-1].endswith("/report.html")


def test_another_process_prints_json_and_nothing_else_on_stdout(tmp_path: Path) -> None:
    done = shell("history", "--root", tmp_path, "--json")
    assert (done.returncode, json.loads(done.stdout)["events"], done.stderr) == (0, [], "")
    done = shell("run", "--day", "2026-03-01", "--json", "--root", tmp_path)
    assert (done.returncode, set(json.loads(done.stdout)["error"])) == (2, PARTS)
    assert "Traceback" not in done.stderr


def test_what_libraries_print_meanwhile_goes_to_stderr_even_from_below_python(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from tasks.cli.console import Answer, clean_stdout, say\n"
        "with clean_stdout(wanted=True) as stdout:\n"
        "    print('chatter'); sys.stdout.flush(); os.write(1, b'from C\\n')\n"
        "    say(Answer({'a': 1}, []), as_json=True, stdout=stdout)\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == '{\n "a": 1\n}\nafter\n'
    assert sorted(done.stderr.split()) == sorted(["chatter", "from", "C"])


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = "import sys; from tasks.cli.main import call; code = call(['run', '--help'])\n"
    code += "print([m for m in ('polars', 'numpy', 'lightgbm', 'pandas', 'scipy') if m in sys.modules], code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_an_interrupt_exits_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show_command, "check_spec", interrupted)
    assert sameworld("show", "--root", tmp_path).code == 130


def test_a_bug_exits_70_with_its_traceback_and_still_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show_command, "check_spec", lambda *_: 1 / 0)
    said = sameworld("show", "--root", tmp_path, "--json")
    assert (said.code, "ZeroDivisionError" in said.err) == (70, True)
    assert said.error["what"] == "this is a bug in sameworld: ZeroDivisionError: division by zero"


def test_fault_27_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    said = run(drop(tmp_path / "drop", 1, ("click", 3), x_a=1.5), tmp_path / "root", day="2026-03-01")
    assert (said.code, set(said.error)) == (2, PARTS)


def test_control_characters_of_a_log_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = show_command.table(("a",), [("\x1b[31mred",)])
    say(Answer({}, ["\x1b]0;title\x07", table]), as_json=False, stdout=sys.stdout)
    assert "\x1b" not in capsys.readouterr().out


def test_a_backfill_ends_where_the_drop_does(tmp_path: Path) -> None:
    source = drop(tmp_path / "drop", 1, x_a=1.5)
    (source / f"day={FIRST + timedelta(days=2)}").mkdir()
    days = ("--from", "2026-03-02", "--to", "2026-03-03")
    said = sameworld("backfill", *days, "--root", tmp_path, "--set", f"source.uri={source}", "--json")
    assert (said.code, set(said.error)) == (3, PARTS)
