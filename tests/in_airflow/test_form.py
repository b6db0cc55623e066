"""What a run's params mean, which handles a task takes, and how its errors end it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from dags.parts.failures import HANDLE, STOPPED, stopped_error, told
from dags.parts.form import FORM, cutoff_of
from dags.parts.steps import day_is_there, perform_step
from sameworld.records import Blocked, NotYet, Refused

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = '[label]\ngains = { click = 1.0 }\ntarget = "click"\n[source]\nuri = "URI"\n'


def a_run(run_type: str = "manual", **conf: Any) -> SimpleNamespace:
    return SimpleNamespace(run_type=run_type, conf=conf)


def params(folder: Path, **changes: Any) -> dict[str, Any]:
    spec = folder / "spec.toml"
    spec.write_text(SPEC.replace("URI", str(folder)))
    return {"day": None, "spec": str(spec), "root": str(folder / "root"), "set": [], **changes}


def mailbox() -> tuple[SimpleNamespace, dict[str, Any]]:
    """What a task pushes to XCom lands in the dictionary."""
    left: dict[str, Any] = {}
    return SimpleNamespace(xcom_push=left.__setitem__), left


def test_the_day_asked_for_goes_before_the_data_interval():
    assert cutoff_of({"day": "2026-03-05"}, a_run(), NOON) == "2026-03-06T00:00:00Z"


def test_without_a_day_the_data_interval_says_which():
    assert cutoff_of({"day": None}, a_run("scheduled"), NOON) == "2026-03-02T00:00:00Z"
    assert cutoff_of({"day": None}, a_run("backfill"), NOON) == "2026-03-02T00:00:00Z"


def test_fault_44_a_run_without_a_day_or_an_interval_is_refused_with_what_to_write():
    with pytest.raises(Refused, match=re.escape('trigger it with {"day": "2026-03-01"}')):
        cutoff_of({"day": None}, a_run(), None)


def test_a_day_in_a_backfills_conf_is_refused_since_it_would_be_the_day_of_all_its_runs():
    with pytest.raises(Refused, match=re.escape("a backfill with a day in its conf: got 2026-03-05")):
        cutoff_of({"day": "2026-03-05"}, a_run("backfill", day="2026-03-05"), NOON)


def test_a_key_that_the_form_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(Refused, match=re.escape("unknown key in the run's conf: got dya; wanted day, spec, root, set")):
        cutoff_of({"day": None}, a_run(dya="2026-03-05"), NOON)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("day", [None, "2026-03-01"], ["yesterday", 7]),
        ("spec", ["baseline"], ["", None]),
        ("root", ["s3://models/root"], ["", 3]),
        ("set", [[], ["train.days=30"]], ["train.days=30", ["train.days"]]),
    ],
)
def test_the_form_takes_what_its_fields_mean(name, good, bad):
    for value in good:
        assert FORM[name].resolve(value) == value
    for value in bad:
        with pytest.raises(ValueError, match=re.escape("Failed validating")):
            FORM[name].resolve(value)


@pytest.mark.parametrize(
    "handle",
    [
        {"uri": "/elsewhere/artifacts/resolve/" + "0" * 64, "reused": False},
        {"uri": "ROOT/artifacts/measure_delay/" + "0" * 64, "reused": False},
        {"uri": "ROOT/artifacts/resolve/../../secrets", "reused": False},
        {"uri": ["ROOT/artifacts/label/" + "0" * 64], "reused": False},
        {"reused": True},
        "s3://bucket/artifacts/resolve/" + "0" * 64,
        None,
    ],
)
def test_a_handle_that_somebody_patched_in_xcom_is_refused_before_anything_runs(tmp_path, handle):
    patched = json.loads(json.dumps(handle).replace("ROOT", str(tmp_path / "root")))
    ti, left = mailbox()
    with pytest.raises(AirflowFailException, match=re.escape("not a URI of an artifact of this root")):
        perform_step("look_back", {"log": patched}, {"log": "resolve"}, params=params(tmp_path), ti=ti)
    assert left[STOPPED]["what"] == "not a URI of an artifact of this root"


def test_a_well_formed_handle_of_nothing_is_refused_too(tmp_path):
    uri = f"{tmp_path}/root/artifacts/resolve/{'0' * 64}"
    with pytest.raises(AirflowFailException, match=re.escape("no such artifact")):
        perform_step("look_back", {"log": {"uri": uri}}, {"log": "resolve"}, params=params(tmp_path), ti=mailbox()[0])


def test_a_day_is_waited_for_until_its_success_lies_in_the_drop(tmp_path):
    asked = params(tmp_path)
    (tmp_path / "day=2026-03-01").mkdir()
    assert not day_is_there("2026-03-02T00:00:00Z", params=asked)
    (tmp_path / "day=2026-03-01" / "_SUCCESS").touch()
    assert day_is_there("2026-03-02T00:00:00Z", params=asked)
    assert not day_is_there("2026-03-03T00:00:00Z", params=asked)


def test_a_day_older_than_the_drops_first_is_not_waited_for(tmp_path):
    (tmp_path / "day=2026-03-01").mkdir()
    (tmp_path / "day=2026-03-01" / "_SUCCESS").touch()
    assert day_is_there("2026-03-01T00:00:00Z", params=params(tmp_path))


def test_a_gate_that_blocks_ends_its_task_for_good_and_leaves_its_findings():
    ti, left = mailbox()
    blocked = Blocked(
        what="the log did not pass", uri="s3://logs/artifacts/validate/ab", findings=("BLOCK landed: 3 %",)
    )
    with pytest.raises(AirflowFailException, match=re.escape("the log did not pass")), told(ti):
        raise blocked
    assert left[HANDLE] == {"uri": blocked.uri, "reused": False}
    assert stopped_error(json.loads(json.dumps(left[STOPPED]))).findings == blocked.findings


@pytest.mark.parametrize("error", [NotYet(what="day 2026-03-01 is not there yet"), ConnectionError("reset")])
def test_what_may_be_better_later_goes_through_to_airflows_retries(error):
    ti, left = mailbox()
    with pytest.raises(type(error), match=re.escape(str(error))), told(ti):
        raise error
    assert left == {}
