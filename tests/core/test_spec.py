import random
import re
from pathlib import Path
from typing import Any

import pytest
from core.core_builders import PROJECT, a_spec, a_tree, changed
from pydantic import ValidationError

from sameworld.records import Refused
from sameworld.spec import Spec, known_keys, load_spec

BASELINE = PROJECT / "experiments" / "baseline.toml"
LABEL = 'label = { gains = { click = 1.0, purchase = 5.0 }, target = "click" }\n'


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.toml"


def with_change(folder: Path, *changes: str) -> Spec:
    return load_spec(written(folder, idea=LABEL), changes=changes)


@pytest.mark.parametrize(
    ("tree", "got", "nearest"),
    [
        ({"trian": {}}, "trian", "train"),
        ({"lable": {}}, "lable", "label"),
        ({"window_days": 3}, "window_days", "label.window_days"),
        ({"train": {"dyas": 30}}, "train.dyas", "train.days"),
        ({"train": {"learning-rate": 0.1}}, "train.learning-rate", "train.learning_rate"),
        ({"validate": {"min_postives": 3}}, "validate.min_postives", "validate.min_positives"),
        ({"backtest": {"deploy_lag": 3}}, "backtest.deploy_lag", "backtest.deploy_lag_hours"),
        ({"decide": {"guardrail": {}}}, "decide.guardrail", "decide.guardrails"),
        ({"engine": {"Threads": 2}}, "engine.Threads", "engine.threads"),
        ({"features": {"view": {}}}, "features.view", "features.views"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_known_one(tree: dict[str, Any], got: str, nearest: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"got '{got}'; wanted '{nearest}' (the nearest known)")):
        Spec.parse(a_tree(**tree))


def test_a_key_like_no_other_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(Refused, match=re.escape("got 'qqq'; wanted one of: backtest, decide, engine")):
        Spec.parse(a_tree(qqq=1))


@pytest.mark.parametrize("section", ["label", "train", "decide"])
def test_every_section_refuses_keys_that_it_does_not_know(section: str) -> None:
    tree = a_tree()
    tree.setdefault(section, {})["zz"] = 1
    with pytest.raises(Refused, match=re.escape(f"got '{section}.zz'")):
        Spec.parse(tree)


def test_a_chain_of_bases_is_merged_from_the_bottom_up(tmp_path: Path) -> None:
    top = written(
        tmp_path,
        top='base = "middle"\n[train]\nseed = 9\n',
        middle='base = "bottom"\n[train]\nseed = 5\nleaves = 7\n',
        bottom=LABEL + "[train]\nseed = 2\nleaves = 3\ndays = 11\n",
    )
    train = load_spec(top).train
    assert (train.seed, train.leaves, train.days) == (9, 7, 11.0)


def test_a_table_of_free_keys_is_replaced_whole(tmp_path: Path) -> None:
    top = written(tmp_path, top='base = "below"\n[label]\ngains = { click = 3.0 }\n', below=LABEL)
    assert load_spec(top).label.gains == {"click": 3.0}


def test_bases_in_a_circle_are_refused_with_the_circle(tmp_path: Path) -> None:
    top = written(tmp_path, a='base = "b"', b='base = "c"', c='base = "a"')
    with pytest.raises(Refused, match=re.escape("go in a circle: got a.toml -> b.toml -> c.toml -> a.toml")):
        load_spec(top)


def test_a_spec_that_is_its_own_base_is_refused_as_a_circle(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("go in a circle: got a.toml -> a.toml")):
        load_spec(written(tmp_path, a='base = "a"'))


def test_a_spec_may_stand_on_the_known_one_of_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "installed").mkdir()
    below = written(tmp_path / "installed", baseline=LABEL)
    top = written(tmp_path, baseline='base = "baseline"\n[train]\nseed = 4\n')
    assert load_spec(top, known={"baseline": below}).train.seed == 4


def test_a_missing_base_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    top = written(tmp_path, idea='base = "basline"')
    with pytest.raises(Refused, match=re.escape("no base spec 'basline'")) as caught:
        load_spec(top, known={"baseline": BASELINE})
    assert caught.value.wanted == "'baseline' (the nearest known)"


def test_a_syntax_error_names_the_file_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("bad.toml is not TOML")) as caught:
        load_spec(written(tmp_path, bad="[train]\ndays = = 3\n"))
    assert "line 2" in caught.value.got


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("absent.toml", "binary.toml"):
        with pytest.raises(Refused, match=re.escape(f"cannot read a spec: got {tmp_path / name}")):
            load_spec(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("train.days=30", "train.days", 30.0),
        ("train.days = 0.5", "train.days", 0.5),
        ("train.seed=-3", "train.seed", -3),
        ("train.max_rounds=1_000", "train.max_rounds", 1000),
        ("train.position=none", "train.position", "none"),
        ('label.target="purchase"', "label.target", "purchase"),
        ("label.segments=['x_a', \"x_b\"]", "label.segments", ["x_a", "x_b"]),
        ("evaluate.at=[1, 3]", "evaluate.at", [1, 3]),
        ("features.exclude=[]", "features.exclude", []),
        ("label.gains={ click = 2 }", "label.gains", {"click": 2.0}),
        ("label.gains.click=0.25", "label.gains", {"click": 0.25, "purchase": 5.0}),
        ("label.gains.hire=9", "label.gains", {"click": 1.0, "purchase": 5.0, "hire": 9.0}),
        ("decide.guardrails={ ece = [0, 0.1] }", "decide.guardrails", {"ece": [0.0, 0.1]}),
        ("source.world.users=40", "source.world", {"users": 40}),
        ("source.uri=s3://logs/a=b", "source.uri", "s3://logs/a=b"),
        ("source.campaign=men", "source.campaign", "men"),
        ("source.campaign=", "source.campaign", ""),
    ],
)
def test_a_change_from_the_command_line_is_toml_or_a_bare_word(
    tmp_path: Path, change: str, key: str, value: Any
) -> None:
    assert with_change(tmp_path, change).part([key]) == {key: value}


def test_of_two_changes_to_one_key_the_last_counts(tmp_path: Path) -> None:
    assert with_change(tmp_path, "train.seed=3", "train.seed=4").train.seed == 4


@pytest.mark.parametrize("change", ["train.days", "=3", "train.=3", ".days=3", "train..days=3", ""])
def test_a_change_without_a_key_or_a_value_is_refused_with_an_example(tmp_path: Path, change: str) -> None:
    with pytest.raises(Refused, match=re.escape("wanted key.path=value. --set train.days=30")):
        with_change(tmp_path, change)


def test_a_change_below_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("--set goes below a value: got label.target.x=1")):
        with_change(tmp_path, "label.target.x=1")


def test_a_second_line_in_a_change_is_no_second_key(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("'train.days' cannot be used")):
        with_change(tmp_path, "train.days=3\nseed=4")


@pytest.mark.parametrize(
    ("change", "key", "wanted"),
    [
        ("train.days=0", "train.days", "greater than 0"),
        ("train.days=soon", "train.days", "valid number"),
        ('train.days="30"', "train.days", "valid number"),
        ("train.days=true", "train.days", "valid number"),
        ("train.days=nan", "train.days", "finite number"),
        ("train.days=inf", "train.days", "finite number"),
        ("train.seed=1.5", "train.seed", "valid integer"),
        ("train.leaves=1", "train.leaves", "greater than or equal to 2"),
        ("train.negative_rate=1.1", "train.negative_rate", "less than or equal to 1"),
        ("train.position=maybe", "train.position", "'estimated' or 'none'"),
        ("train.order=clicks", "train.order", "'gain' or 'lambdarank'"),
        ("train.order=rank_xendcg", "train.order", "rank_xendcg leaves positions out without a word"),
        ("train=5", "train", "valid dictionary"),
        ("validate.max_quarantined_share=2", "validate.max_quarantined_share", "less than or equal to 1"),
        ("validate.max_volume_share=0.9", "validate.max_volume_share", "greater than or equal to 1"),
        ("label.gains.click=-1", "label.gains.click", "greater than or equal to 0"),
        ("label.gains.click=nan", "label.gains.click", "finite number"),
        ("label.segments=x_a", "label.segments", "valid list"),
        ("label.target=7", "label.target", "valid string"),
        ("evaluate.at=[0]", "evaluate.at.0", "greater than or equal to 1"),
        ("decide.drill_calibration=[0.8]", "decide.drill_calibration", "at least 2 items"),
        ("decide.drill_calibration=[1.2, 0.8]", "decide", "the lower end first"),
        ("decide.guardrails={ ece = [0.1] }", "decide.guardrails.ece", "at least 2 items"),
        ("engine.kind=spark", "engine.kind", "'local' or 'dask'"),
    ],
)
def test_a_value_of_a_wrong_type_or_range_is_refused_by_its_key(
    tmp_path: Path, change: str, key: str, wanted: str
) -> None:
    with pytest.raises(Refused, match=re.escape(f"spec key '{key}' cannot be used: got ")) as caught:
        with_change(tmp_path, change)
    assert wanted in caught.value.wanted


def test_a_target_without_a_gain_is_refused_with_the_kinds() -> None:
    with pytest.raises(Refused, match=re.escape("target 'hire' is not among the kinds of gains: click, purchase")):
        Spec.parse({"label": {"gains": {"purchase": 1.0, "click": 1.0}, "target": "hire"}})


def test_a_spec_without_labels_or_gains_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("'label' cannot be used: got nothing; wanted Field required")):
        Spec.parse({})
    with pytest.raises(Refused, match=re.escape("gains is empty; wanted at least one outcome kind")):
        Spec.parse({"label": {"gains": {}, "target": "click"}})


def shuffled(tree: Any, draw: random.Random) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {key: shuffled(tree[key], draw) for key in draw.sample(sorted(tree), len(tree))}


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    spec, draw = a_spec(), random.Random(1)
    assert {Spec.parse(shuffled(spec.tree(), draw)).digest() for _ in range(50)} == {spec.digest()}


def test_defaults_that_are_written_out_give_the_same_hash() -> None:
    assert a_spec(train={"seed": 1, "days": 60}).digest() == a_spec().digest()


@pytest.mark.parametrize("key", known_keys())
def test_the_hash_depends_on_every_key_but_where_the_work_runs(key: str) -> None:
    assert (changed(key).digest() != a_spec().digest()) == (not key.startswith("engine."))
    assert changed(key).part([key]) != a_spec().part([key])


def test_a_spec_cannot_be_changed_once_it_is_made() -> None:
    with pytest.raises(ValidationError, match=re.escape("Instance is frozen")):
        a_spec().train.seed = 3


def described(text: str) -> set[str]:
    """Return the keys that a spec file sets (or shows, commented out) beside or below a comment."""
    section, found, before = "", set(), ""
    for line in text.splitlines():
        if header := re.fullmatch(r"#?\s*\[([\w.]+)\].*", line):
            section = header[1]
        elif (setting := re.match(r"#?\s*(\w+)\s*=(.*)", line)) and ("#" in setting[2] or before.startswith("#")):
            found |= {f"{section}.{setting[1]}", section}
        before = line
    return found


@pytest.mark.skipif(not BASELINE.exists(), reason="experiments/baseline.toml is not there")
def test_the_baseline_describes_every_key_and_no_other() -> None:
    load_spec(BASELINE)
    assert set(known_keys()) <= described(BASELINE.read_text(encoding="utf-8"))
