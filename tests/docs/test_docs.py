"""The words agree with the code: links, commands, keys, steps, paths and names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer
from docs.pages import (
    PROJECT,
    Command,
    code_names,
    console_commands,
    linked,
    pages,
    rows_below,
    shortened,
    text_of,
)

from sameworld.page.glossary import GLOSSARY
from sameworld.sources.day_table import OPEN_FATES
from sameworld.sources.row_checks import REASONS
from sameworld.sources.standing import CONFLICT, ORPHAN
from sameworld.spec import known_keys
from tasks.cli.main import app, call
from tasks.run import planned

README = text_of("README.md")
COMMANDS = console_commands(README)
# What takes minutes, or needs a drop of the reader's own: read against the parser, not run.
LONG = ("init", "demo", "backfill", "score")


def is_quick(command: Command) -> bool:
    if command.words[0] != "sameworld" or command.words[1] in LONG:
        return False
    return command.words[1] != "run" or "closed_loop" in command.words


def options_of(name: str) -> set[str]:
    group = typer.main.get_command(app)
    return {option for parameter in group.commands[name].params for option in parameter.opts}  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    missing = [target for target in linked(page) if not (page.parent / target).resolve().exists()]
    assert not missing


def test_every_relative_link_stays_in_the_project() -> None:
    outside = [(page, one) for page in pages() for one in linked(page)
               if not (page.parent / one).resolve().is_relative_to(PROJECT)]  # fmt: skip
    assert not outside


def test_the_readme_fits_on_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_the_readme_has_commands_to_run_and_commands_to_read() -> None:
    assert {is_quick(command) for command in COMMANDS} == {True, False}


@pytest.mark.parametrize("command", [one for one in COMMANDS if is_quick(one)], ids=str)
def test_a_quick_command_of_the_readme_prints_what_the_readme_says(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    call(command.words[1:])
    assert shortened(capfd.readouterr().out) == shortened(command.output)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words[0] == "sameworld"], ids=str)
def test_a_command_of_the_readme_uses_options_that_there_are(command: Command) -> None:
    asked = {word for word in command.words[2:] if word.startswith("--")}
    assert asked <= options_of(command.words[1])


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words[0] == "make"], ids=str)
def test_a_make_target_of_the_readme_is_in_the_makefile(command: Command) -> None:
    assert re.search(rf"^{command.words[1]}:", text_of("Makefile"), re.MULTILINE)


def test_the_contract_has_every_command_and_no_other() -> None:
    told = {row.split()[2].strip("`") for row in rows_below(text_of("docs/contract.md"), "| command | does |")}
    assert told == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_key_of_a_spec_is_in_the_contract() -> None:
    assert set(known_keys()) <= code_names(text_of("docs/contract.md"))


def test_the_contract_names_no_key_that_a_spec_refuses() -> None:
    told = {
        name
        for row in rows_below(text_of("docs/contract.md"), "| key | means |")
        for name in code_names(row.split("|")[1])
    }
    assert told == set(known_keys())


def test_the_baseline_has_every_key_of_a_spec_and_says_what_it_means() -> None:
    text = text_of("experiments/baseline.toml")
    told = {f"{section}.{key}" for section, keys in tomllib.loads(text).items() for key in keys}
    bare = [line for line in text.splitlines() if " = " in line.split("#")[0] and "#" not in line]
    assert told == set(known_keys())
    assert not bare


def test_every_step_of_a_day_is_in_the_readmes_picture() -> None:
    picture = README.split("```")[1]
    names = {call.name for call in planned("2026-03-02T00:00:00Z").calls}
    assert not {name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", picture)}


def test_every_path_of_where_to_change_what_is_there() -> None:
    rows = rows_below(README, "| to change |")
    paths = {name for row in rows for name in code_names(row) if "=" not in name}
    assert len(paths) > 20
    assert not {path for path in paths if not (PROJECT / path).exists()}


def test_every_path_that_a_page_names_is_there() -> None:
    place = re.compile(r"`((?:sameworld|tasks|dags|tests|expectations|experiments|docs)/[\w/.-]*)`")
    named = {(page.name, path) for page in pages() for path in place.findall(page.read_text(encoding="utf-8"))}
    assert not {one for one in named if not (PROJECT / one[1]).exists()}


def test_the_contract_has_every_reason_of_quarantine_and_no_other() -> None:
    rows = rows_below(text_of("docs/contract.md"), "| reason | what was wrong |")
    told = [re.match(r"\| `(\w+)` \|", row) for row in rows]
    fates = {*REASONS, *OPEN_FATES, ORPHAN} - {CONFLICT}  # a conflict is counted, not quarantined
    assert {one[1] for one in told if one} == fates


def test_the_glossary_is_the_reports_own_and_has_at_most_twenty_words() -> None:
    rows = rows_below(text_of("docs/glossary.md"), "| word | means |")
    assert [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows] == list(GLOSSARY)
    assert len(GLOSSARY) <= 20


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+\.\w+)`", text_of("docs/methods.md")))))
def test_a_function_that_the_methods_name_is_in_the_maths_or_a_key_of_a_spec(name: str) -> None:
    module, function = name.split(".")
    path = PROJECT / "sameworld" / "maths" / f"{module}.py"
    assert name in known_keys() or f"def {function}(" in path.read_text(encoding="utf-8")


def test_decisions_are_numbered_without_a_gap_dated_and_titled_by_their_number() -> None:
    found = sorted((PROJECT / "docs" / "decisions").glob("*.md"))
    assert [path.name[:3] for path in found] == [f"{number:03d}" for number in range(1, len(found) + 1)]
    for path in found:
        title, _, day = path.read_text(encoding="utf-8").splitlines()[:3]
        assert title.startswith(f"# {path.name[:3]} ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", day)


def test_no_page_names_a_place_on_somebodys_machine() -> None:
    private = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|work|Users)/")
    assert not [page.name for page in pages() if private.search(page.read_text(encoding="utf-8"))]
