import ast
import importlib
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import polars as pl
import pytest
from core.core_builders import (
    CUTOFF,
    Killed,
    a_record,
    a_spec,
    a_step,
    changed,
    dying_at_put,
    everything_below,
    in_another_process,
    steps_of_the_flow,
    two_tables,
    write_two_tables,
)

from sameworld.records import Cannot, Refused
from sameworld.spec import known_keys
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.made_by import BODIES, MADE_BY, WHOLE
from sameworld.store.step import Step, Work, narrowed, step
from tasks.run import planned

STEPS = steps_of_the_flow()
PUTS = 4  # two tables, the record, the manifest


def fingerprint_parts(spec: Any) -> dict[str, Any]:
    return {name: one._made_from(spec, None, {}) for name, one in STEPS.items()}


AS_IT_IS = fingerprint_parts(a_spec())


# --- which key changes what


@pytest.mark.parametrize("key", known_keys())
def test_a_changed_key_changes_exactly_the_steps_that_name_it(key: str) -> None:
    after = fingerprint_parts(changed(key))
    moved = {name for name in STEPS if after[name] != AS_IT_IS[name]}
    assert moved == {name for name, one in STEPS.items() if {key, key.split(".", maxsplit=1)[0]} & set(one.reads)}


@pytest.mark.parametrize("key", [key for key in known_keys() if key.startswith("engine.")])
def test_where_the_work_runs_changes_no_answer(key: str) -> None:
    assert fingerprint_parts(changed(key)) == AS_IT_IS


def test_every_other_key_changes_an_answer() -> None:
    named = {name for one in STEPS.values() for name in one.reads}
    silent = {key for key in known_keys() if not {key, key.split(".")[0]} & named}
    # Where the drop lies and how it is mapped show in its content.
    of_the_log = {"source.uri", "source.tables", "source.campaign", "source.world"}
    assert {key for key in silent if not key.startswith("engine.")} <= of_the_log


@pytest.mark.parametrize("name", STEPS)
def test_a_step_sees_no_key_that_it_did_not_name(name: str) -> None:
    seen, reads = narrowed(a_spec(), STEPS[name].reads), set(STEPS[name].reads)
    for key in known_keys():
        section, field = key.split(".")
        is_there = hasattr(getattr(seen, section, None), field)
        assert is_there == bool({key, section} & reads), key


def keys_used(module: str) -> Iterator[str]:
    """Yield ``section.key`` for each ``work.spec.section.key``, also by way of ``x = work.spec.section``."""
    tree = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8"))
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        names = dict(short_names(function))
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                section = section_of(node.value) or names.get(getattr(node.value, "id", ""))
                if section:
                    yield f"{section}.{node.attr}"


def section_of(node: ast.AST) -> str | None:
    match = re.fullmatch(r"(?:self\.|delta\.|trainer\.)*work\.spec\.(\w+)", ast.unparse(node))
    return match[1] if match else None


def short_names(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Tuple):
            target, value = node.targets[0], node.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts, strict=True) if both else [(target, value)]  # type: ignore[union-attr]
            yield from ((name.id, section) for name, one in pairs if (section := section_of(one)))  # type: ignore


@pytest.mark.parametrize("module", sorted({name.split(".")[0] for name in STEPS}))
def test_a_module_uses_no_key_that_its_steps_do_not_name(module: str) -> None:
    named = {key for name, one in STEPS.items() if name.startswith(f"{module}.") for key in one.reads}
    used = set(keys_used(f"tasks.{module}"))
    assert {key for key in used if not {key, key.split(".")[0]} & named} == set()
    assert used <= set(known_keys())


def test_the_search_for_used_keys_finds_those_that_are_known_to_be_used() -> None:
    assert {"label.window_days", "train.days", "source.max_skew_seconds"} <= set(keys_used("tasks.label"))
    assert {"validate.min_positives", "label.gains"} <= set(keys_used("tasks.validate"))
    assert "train.negative_rate" in set(keys_used("tasks.train"))


def test_a_body_that_reads_a_key_it_did_not_name_fails_and_publishes_nothing(tmp_path: Path) -> None:
    def body(work: Work) -> None:
        work.record["days"] = work.spec.train.days

    with pytest.raises(AttributeError, match=re.escape("has no attribute 'days'")):
        a_step(body, "train.seed")(store=Store(str(tmp_path)), spec=a_spec())
    assert everything_below(tmp_path) == {}


def test_a_step_that_names_a_section_and_one_of_its_keys_sees_the_section() -> None:
    assert narrowed(a_spec(), ("train", "train.days")).train.seed == 1


def test_a_step_cannot_name_a_key_that_there_is_not() -> None:
    with pytest.raises(Refused, match=re.escape("names a spec key that there is not: got label.window")):
        step(reads=("train", "label.window"))


# --- run once


def test_the_same_question_is_answered_once(tmp_path: Path) -> None:
    asked: list[str] = []
    one = a_step(lambda work: asked.append("once"))
    made = [one.make(store=Store(str(tmp_path)), spec=a_spec(), cutoff=CUTOFF) for _ in range(3)]
    assert [each.reused for each in made] == [False, True, True]
    assert (len({each.uri for each in made}), asked) == (1, ["once"])


def test_the_cutoff_the_inputs_the_keys_and_the_body_make_a_question(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    inputs = [a_record(store, "resolve", {"n": n}) for n in (1, 2)]
    one, other = (a_step(body, "train.seed") for body in (write_two_tables, lambda work, **_: None))
    uris = [one(store=store, spec=a_spec(), cutoff=CUTOFF, log=uri) for uri in inputs]
    uris += [one(store=store, spec=a_spec(), cutoff="2026-03-03T00:00:00Z", log=inputs[0])]
    uris += [one(store=store, spec=changed("train.seed"), cutoff=CUTOFF, log=inputs[0])]
    uris += [other(store=store, spec=a_spec(), cutoff=CUTOFF, log=inputs[0])]
    assert len(set(uris)) == 5


def test_one_moment_in_two_spellings_is_one_cutoff(tmp_path: Path) -> None:
    cutoffs = ["2026-03-02T00:00:00Z", "2026-03-02T01:00:00+01:00", "2026-03-02T00:00:00.000000+00:00"]
    assert len({two_tables_at(tmp_path, cutoff) for cutoff in cutoffs}) == 1


def two_tables_at(root: Path, cutoff: str) -> str:
    return a_step(write_two_tables)(store=Store(str(root)), spec=a_spec(), cutoff=cutoff)


def test_the_order_of_a_list_of_inputs_is_part_of_the_question(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    days = [a_record(store, "ingest", {"n": n}) for n in (1, 2)]
    uris = {a_step(write_two_tables)(store=store, spec=a_spec(), days=some) for some in (days, days[::-1], days[:1])}
    assert len(uris) == 3


def test_what_a_run_cost_stands_in_the_manifest_only(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    assert made.manifest["rows"] == 102
    assert made.manifest["seconds"] >= 0
    assert made.manifest["peak_mb"] > 1
    assert made.record == {"answer": 42}


def test_a_step_leaves_nothing_behind_but_its_artifact(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    names = {f"artifacts/measure/{made.fingerprint}/{name}" for name in (*made.files, "manifest.json")}
    assert set(everything_below(tmp_path)) == names


def test_a_cutoff_that_a_step_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("this step takes no cutoff")):
        a_step(lambda work: work.record.update(now=work.now))(store=Store(str(tmp_path)), spec=a_spec())


# --- what cannot be answered


def test_what_cannot_be_answered_makes_all_that_stands_on_it_the_same(tmp_path: Path) -> None:
    store, reason = Store(str(tmp_path)), "nobody clicked"
    sound, cannot = a_record(store, "ingest", {"n": 1}), a_record(store, "ingest", Cannot(reason).as_record())
    one = a_step(lambda work, **_: pytest.fail("the body was run"))
    for inputs in ({"days": [sound, cannot]}, {"other": cannot}, {"a": sound, "z": cannot}):
        first = store.open(one(store=store, spec=a_spec(), **inputs))
        second = store.open(one(store=store, spec=a_spec(), before=first.uri))
        assert first.cannot == second.cannot == Cannot(reason)
        assert first.files == ("record.json",)


def test_a_cutoff_may_come_from_a_step_that_found_one_or_found_none(tmp_path: Path) -> None:
    store, one = Store(str(tmp_path)), a_step(lambda work: work.record.update(at=str(work.now.date())))
    found = a_record(store, "look_back", {"cutoff": CUTOFF})
    none = a_record(store, "look_back", Cannot("too young").as_record())
    made = [store.open(one(store=store, spec=a_spec(), cutoff=cutoff)) for cutoff in (found, none)]
    assert made[0].record == {"at": "2026-03-02"}
    assert made[1].cannot == Cannot("too young")
    assert made[0].uri == one(store=store, spec=a_spec(), cutoff=CUTOFF)


def test_a_cutoff_from_a_step_that_found_none_is_refused(tmp_path: Path) -> None:
    uri = a_record(Store(str(tmp_path)), "label", {"rows": 3})
    with pytest.raises(Refused, match=re.escape("a cutoff from an artifact that found none")):
        two_tables_at(tmp_path, uri)


# --- URIs that were patched by hand


def test_fault_47_a_uri_of_another_step_than_the_input_expects_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    uri = a_record(store, "label", {"n": 1})
    for inputs in ({"log": uri}, {"days": [uri]}):
        with pytest.raises(Refused, match=re.escape("not a URI of an artifact of this root")) as caught:
            a_step(write_two_tables)(store=store, spec=a_spec(), **inputs)
        assert caught.value.wanted.startswith(f"{store.root}/artifacts/{MADE_BY[next(iter(inputs))]}/")


@pytest.mark.parametrize(("name", "part", "whole"), [("log", "mark_day", "run"), ("days", "copy_day", "ingest_day")])
def test_fault_47_a_part_of_the_right_step_is_refused_where_the_whole_is_wanted(
    tmp_path: Path, name: str, part: str, whole: str
) -> None:
    store, maker = Store(str(tmp_path)), MADE_BY[name]
    uri, other = (made_by_a(function, store, maker) for function in (part, whole))
    with pytest.raises(Refused, match=re.escape(f"{name} is a part of what {maker} makes")) as caught:
        two_tables(tmp_path, **{name: [uri] if name == "days" else uri})
    assert caught.value.got == f"{uri}, made by {maker}.{part}"
    assert caught.value.wanted == f"the whole, made by {maker}.{whole}"
    assert f"the URI of step {maker}" in caught.value.remedy
    assert two_tables(tmp_path, **{name: [other] if name == "days" else other}).record == {"answer": 42}


def made_by_a(function: str, store: Store, maker: str) -> str:
    """Publish what a function of this name makes as part of a step."""

    def body(work: Work) -> None:
        work.record |= {"made by": function}

    body.__name__ = function
    return a_step(body, name=maker)(store=store, spec=a_spec())


def test_the_flow_hands_each_input_what_its_name_expects() -> None:
    handed = {
        (name, value.name.split(".")[0])
        for call in planned(CUTOFF).calls
        for name, value in call.inputs.items()
        if name != "cutoff" and not isinstance(value, str)
    }
    assert handed == set(MADE_BY.items())


def test_every_step_whose_output_is_handed_on_is_made_by_the_function_that_is_named() -> None:
    for maker in MADE_BY.values():
        assert hasattr(importlib.import_module(f"tasks.{maker}"), BODIES.get(maker, WHOLE))


def test_fault_47_a_uri_of_another_root_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    foreign = a_record(Store(str(tmp_path / "theirs")), "resolve", {"n": 1})
    with pytest.raises(Refused, match=re.escape(f"not a URI of an artifact of this root: got {foreign!r}")):
        two_tables(tmp_path / "ours", log=foreign)
    assert not (tmp_path / "ours").exists()


def test_fault_29_a_step_does_not_reuse_an_artifact_whose_bytes_changed(tmp_path: Path) -> None:
    path = two_tables(tmp_path).path("b.parquet")
    path.write_bytes(path.read_bytes().replace(b"x", b"z", 1))
    with pytest.raises(Refused, match=re.escape("b.parquet was changed after it was written")):
        two_tables(tmp_path)


# --- two at once


def test_fault_28_threads_with_one_question_publish_once(tmp_path: Path) -> None:
    start = Barrier(6)

    def body(work: Work) -> None:
        start.wait(20)
        work.write("a", pl.DataFrame({"n": [work.folder.name]}))  # what no two runs agree on

    one, store = a_step(body), Store(str(tmp_path))
    with ThreadPoolExecutor(6) as pool:
        uris = set(pool.map(lambda _: one(store=store, spec=a_spec()), range(6)))
    assert len(uris) == 1
    assert len(store.open(uris.pop()).verify().scan("a").collect()) == 1


def test_fault_28_processes_with_one_question_publish_once(tmp_path: Path) -> None:
    command = in_another_process("print(two_tables(sys.argv[1]).uri)", str(tmp_path))
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    uris = {one.communicate(timeout=60)[0].strip() for one in running}
    assert uris == {two_tables(tmp_path).verify().uri}


# --- killed, full, broken


@pytest.mark.parametrize("landed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, PUTS + 1))
def test_fault_25_a_run_that_dies_at_any_put_is_made_good_by_the_next(
    tmp_path: Path, number: int, landed: bool
) -> None:
    with dying_at_put(number, landed=landed), pytest.raises(Killed):
        two_tables(tmp_path / "killed")
    half = Store(str(tmp_path / "killed")).find("measure", two_tables(tmp_path / "clean").fingerprint)
    assert (half is not None) == (landed and number == PUTS)
    again, clean = two_tables(tmp_path / "killed"), two_tables(tmp_path / "clean")
    assert again.verify().content_hash == clean.content_hash
    assert {name: again.path(name).read_bytes() for name in again.files} == {
        name: clean.path(name).read_bytes() for name in clean.files
    }


def test_a_clean_run_has_no_more_puts_than_those_it_can_die_at(tmp_path: Path) -> None:
    with dying_at_put(PUTS + 1, landed=True) as asked:
        two_tables(tmp_path)
    assert [key.rsplit("/", 1)[1] for key in asked] == ["a.parquet", "b.parquet", "record.json", "manifest.json"]


KILLS_ITSELF = """
import os, signal
real, left = blobs.FolderBlobs.put_if_absent, [int(sys.argv[2])]
def put(self, key, content):
    left[0] -= 1
    if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
    return real(self, key, content)
blobs.FolderBlobs.put_if_absent = put
two_tables(sys.argv[1])
"""


@pytest.mark.parametrize("number", [1, PUTS])
def test_fault_25_a_process_killed_by_the_system_leaves_nothing_visible(tmp_path: Path, number: int) -> None:
    done = subprocess.run(
        in_another_process(KILLS_ITSELF, str(tmp_path / "killed"), str(number)), timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    clean = two_tables(tmp_path / "clean")
    assert Store(str(tmp_path / "killed")).find("measure", clean.fingerprint) is None
    assert two_tables(tmp_path / "killed").verify().content_hash == clean.content_hash


def test_fault_42_what_an_earlier_try_left_under_a_name_does_not_count(tmp_path: Path) -> None:
    clean = two_tables(tmp_path / "clean")
    left = tmp_path / "killed" / "artifacts" / "measure" / clean.fingerprint
    left.mkdir(parents=True)
    (left / "a.parquet").write_bytes(b"from another try")
    again = two_tables(tmp_path / "killed").verify()
    assert again.content_hash == clean.content_hash
    assert again.scan("a").collect().equals(clean.scan("a").collect())


def test_fault_26_a_put_that_landed_but_raised_is_recognised_by_the_next_try(tmp_path: Path) -> None:
    for number in range(1, PUTS + 1):
        with dying_at_put(number, landed=True), pytest.raises(Killed):
            two_tables(tmp_path / str(number))
        made = two_tables(tmp_path / str(number))
        assert {entry["stored_as"] for entry in made.manifest["files"].values()} == set(made.files)


def test_fault_27_a_full_disk_while_a_table_is_written_is_refused_and_nothing_published(tmp_path: Path) -> None:
    def body(work: Work) -> None:
        (work.folder / "a.parquet").symlink_to("/dev/full")
        work.write("a", pl.DataFrame({"n": [1]}))

    with pytest.raises(Refused, match=re.escape("the root cannot be written")) as caught:
        a_step(body)(store=Store(str(tmp_path)), spec=a_spec())
    assert "No space left on device" in caught.value.got
    assert everything_below(tmp_path) == {}


def test_fault_27_a_root_in_which_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refused, match=re.escape("the root cannot be written: got Not a directory")):
        two_tables(tmp_path / "file" / "root")


def test_an_error_of_the_body_is_its_own_and_nothing_is_published(tmp_path: Path) -> None:
    for error in (ValueError("mine"), FileNotFoundError("mine"), pl.exceptions.ComputeError("mine")):
        with pytest.raises(type(error), match=re.escape("mine")):
            a_step(lambda work, e=error: (_ for _ in ()).throw(e))(store=Store(str(tmp_path)), spec=a_spec())
    assert everything_below(tmp_path) == {}


def test_steps_of_the_flow_are_named_after_their_modules_and_documented() -> None:
    assert all(isinstance(one, Step) and one.__doc__ for one in STEPS.values())
    assert {name: one.name for name, one in STEPS.items()} == {name: name.split(".")[0] for name in STEPS}


def test_an_input_is_opened_for_the_body_and_left_as_it_was(tmp_path: Path) -> None:
    before = two_tables(tmp_path)
    bytes_before = everything_below(tmp_path)

    def body(work: Work, *, table: Artifact) -> None:
        work.record["sum"] = table.scan("a").select(pl.col("n").sum()).collect().item()

    made = Store(str(tmp_path)).open(
        a_step(body, name="add")(store=Store(str(tmp_path)), spec=a_spec(), table=before.uri)
    )
    assert made.record == {"sum": 4950}
    assert bytes_before.items() <= everything_below(tmp_path).items()
    assert list((tmp_path / "scratch").iterdir()) == []
