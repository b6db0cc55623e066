"""A spec is found by its name, and the shipped ones are what they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from sameworld.records import Refused
from sameworld.spec import Spec, known_keys
from sameworld.store.code import PROJECT
from tasks.cli.specs import find_spec, known_specs, use_threads

BASELINE = PROJECT / "experiments" / "baseline.toml"
LEAST = {"label": {"gains": {"click": 1.0}, "target": "click"}}


def test_the_baseline_is_the_codes_defaults() -> None:
    assert find_spec("baseline") == Spec.parse(LEAST)


def test_the_baseline_writes_out_every_key_and_comments_each() -> None:
    tree = tomllib.loads(BASELINE.read_text(encoding="utf-8"))
    written = {f"{section}.{key}" for section, keys in tree.items() for key in keys}
    assert written == set(known_keys())
    lines = [line for line in BASELINE.read_text(encoding="utf-8").splitlines() if " = " in line.split("#")[0]]
    assert len(lines) == len(written)
    assert all(len(line.split("#", 1)[1]) > 10 for line in lines)


@pytest.mark.parametrize("name", sorted(path.stem for path in (PROJECT / "experiments").glob("*.toml")))
def test_every_shipped_experiment_loads_by_its_name_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_spec(name).label.target


def test_a_spec_of_the_working_folder_goes_before_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    Path("experiments/open_bandit.toml").write_text('base = "baseline"\n[train]\ndays = 5\n')
    assert find_spec("open_bandit").train.days == 5
    assert find_spec("baseline").train.days == 60


def test_a_path_is_read_as_a_file_and_may_build_on_a_shipped_base(tmp_path: Path) -> None:
    idea = tmp_path / "idea.toml"
    idea.write_text('base = "open_bandit"\n[train]\nleaves = 3\n')
    spec = find_spec(str(idea))
    assert (spec.train.leaves, spec.source.kind) == (3, "open_bandit")


def test_changes_go_on_top_and_their_values_are_toml() -> None:
    spec = find_spec("baseline", ["train.days=30", "source.uri=/a b", 'label.segments=["x_a"]'])
    assert (spec.train.days, spec.source.uri, spec.label.segments) == (30, "/a b", ["x_a"])


def test_an_unknown_name_is_refused_with_the_known_and_the_nearest() -> None:
    with pytest.raises(Refused, match=re.escape("open_bandit (experiments/*.toml)")) as refused:
        find_spec("opne_bandit")
    assert refused.value.remedy == "did you mean 'open_bandit'?"


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("cannot read a spec")):
        find_spec("nowhere/idea.toml")


def test_names_are_file_stems() -> None:
    assert {"baseline", "open_bandit", "closed_loop"} <= set(known_specs())


def test_threads_bound_the_libraries_only_where_a_spec_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")
    environment: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environment)
    use_threads(find_spec("baseline"))
    assert not environment
    use_threads(find_spec("baseline", ["engine.threads=2"]))
    assert environment == dict.fromkeys(names, "2")
