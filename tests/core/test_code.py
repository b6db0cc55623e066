import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest
from core.core_builders import PROJECT, a_spec, project_of, steps_of_the_flow

from sameworld.store import code

STEPS = steps_of_the_flow()
PLAIN = {
    "tasks/__init__.py": "",
    "tasks/count.py": "import numpy\nimport sameworld.store.times as times\n\ndef run():\n"
    "    from sameworld.maths.delay import curve\n    return curve(times.DAY)\n",
    "sameworld/store/times.py": '"""Days."""\nDAY = 24  # hours\n',
    "sameworld/maths/__init__.py": "",
    "sameworld/maths/delay.py": "from . import shape\nfrom .shape import power\nfrom ..records import Estimate\n\n"
    'def curve(x):\n    """Return a curve."""\n    return power(x)\n',
    "sameworld/maths/shape.py": "import tasks.count\n\n\ndef power(x):\n    return x ** 2\n",
    "sameworld/records.py": "class Estimate:\n    pass\n",
    "sameworld/alone.py": "X = 1\n",
    "expectations/__init__.py": "",
    "benchmarks/speed.py": "X = 1\n",
}


def hash_of(folder: Path, **changes: str) -> str:
    files = {**PLAIN, **{name.replace("__", "/") + ".py": text for name, text in changes.items()}}
    with project_of(folder, files):
        return code.code_hash("tasks.count")


def test_the_closure_follows_imports_inside_functions_relative_ones_and_circles(tmp_path: Path) -> None:
    with project_of(tmp_path, PLAIN):
        assert code.closure("tasks.count") == (
            "sameworld",
            "sameworld.maths",
            "sameworld.maths.delay",
            "sameworld.maths.shape",
            "sameworld.records",
            "sameworld.store",
            "sameworld.store.times",
            "tasks",
            "tasks.count",
        )


@pytest.mark.parametrize(
    "file", ["tasks__count", "sameworld__store__times", "sameworld__maths__shape", "sameworld__records"]
)
def test_fault_30_changed_code_in_any_module_of_the_closure_is_another_hash(tmp_path: Path, file: str) -> None:
    text = PLAIN[file.replace("__", "/") + ".py"]
    assert hash_of(tmp_path, **{file: f"{text}\nMORE = 1\n"}) != hash_of(tmp_path)


def test_fault_30_a_changed_constant_or_operator_is_another_hash(tmp_path: Path) -> None:
    hashes = {
        hash_of(tmp_path),
        hash_of(tmp_path, sameworld__store__times="DAY = 25\n"),
        hash_of(tmp_path, sameworld__store__times="DAY = 24.0\n"),
        hash_of(tmp_path, sameworld__store__times="DAY = '24'\n"),
        hash_of(tmp_path, sameworld__maths__shape="import tasks.count\n\n\ndef power(x):\n    return x * 2\n"),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize(
    "text",
    [
        "DAY = 24\n",
        '"""Other words."""\n\n\n# why\nDAY   =   24\n',
        "DAY = (\n    24\n)\n",
        "DAY = 0x18\n",
    ],
)
def test_fault_30_comments_docstrings_and_layout_do_not_count(tmp_path: Path, text: str) -> None:
    assert hash_of(tmp_path, sameworld__store__times=text) == hash_of(tmp_path)


def test_a_docstring_of_a_function_does_not_count_but_its_body_does(tmp_path: Path) -> None:
    documented = 'class Estimate:\n    """An estimate."""\n'
    assert hash_of(tmp_path, sameworld__records=documented) == hash_of(tmp_path)
    assert hash_of(tmp_path, sameworld__records="class Estimate:\n    x = 'An estimate.'\n") != hash_of(tmp_path)


def test_code_outside_the_closure_does_not_count(tmp_path: Path) -> None:
    changes = {"sameworld__alone": "X = 2\n", "benchmarks__speed": "X = 2\n"}
    assert hash_of(tmp_path, **changes) == hash_of(tmp_path)


def test_the_same_code_in_another_module_is_another_hash(tmp_path: Path) -> None:
    with project_of(tmp_path, {"tasks/a.py": "X = 1\n", "tasks/b.py": "X = 1\n"}):
        assert code.code_hash("tasks.a") != code.code_hash("tasks.b")


@pytest.mark.parametrize("library", code.COMPUTING)
def test_fault_30_another_version_of_a_library_that_computes_is_another_fingerprint(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    step, real = STEPS["label.run"], importlib.metadata.version
    before = step._made_from(a_spec(), None, {})
    code.library_versions.cache_clear()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == library else real(name))
    after = step._made_from(a_spec(), None, {})
    code.library_versions.cache_clear()
    assert {name for name in before if before[name] != after[name]} == {"libraries"}


@pytest.mark.parametrize("name", STEPS)
def test_a_steps_closure_holds_what_it_stands_on_and_nothing_above_it(name: str) -> None:
    module = f"tasks.{name.split('.', maxsplit=1)[0]}"
    found = set(code.closure(module))
    assert {module, "sameworld.store.step", "sameworld.store.artifacts", "sameworld.spec"} <= found
    assert {one for one in found if one.startswith("tasks.")} == {module}
    assert not {one for one in found if one.startswith(("sameworld.page", "dags"))}


def test_every_import_of_ours_in_the_real_closure_is_in_it() -> None:
    found = code.closure("tasks.label")
    assert {"sameworld.maths.delay", "sameworld.store.log", "sameworld.store.outcomes"} <= set(found)
    for name in found:
        path = PROJECT / (name.replace(".", "/") + ".py")
        tree = ast.parse(path.read_text() if path.exists() else "")
        named = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        assert {one for one in named if one.startswith("sameworld.")} <= set(found)


MOVES_OR_CHECKS = {"boto3", "botocore", "psutil", "pydantic", "pydantic_core"}  # bytes and settings, no numbers
DISTRIBUTIONS = {"sklearn": "scikit-learn", "great_expectations": "great-expectations"}


def imported_by(module: str) -> set[str]:
    path = PROJECT / (module.replace(".", "/") + ".py")
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names = plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".", maxsplit=1)[0] for name in names}


def test_every_library_that_a_step_computes_with_is_part_of_the_fingerprint() -> None:
    modules = {one for name in STEPS for one in code.closure(f"tasks.{name.split('.', maxsplit=1)[0]}")}
    libraries = {one for module in modules for one in imported_by(module)}
    foreign = libraries - set(sys.stdlib_module_names) - set(code.OURS) - MOVES_OR_CHECKS
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} - set(code.COMPUTING) == set()
    assert {"lightgbm", "numpy", "polars"} <= foreign
