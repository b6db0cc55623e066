"""How a spec says which SQL maps which files, and what is refused by its key."""

import re
from pathlib import Path

import pytest
from sources.mapped_logs import (
    BASES,
    DAY,
    REQUESTS,
    rows_of,
    tree_of,
    write_csv,
)

from sameworld.mapped_table import NAMES
from sameworld.records import Refused
from sameworld.sources import open_source
from sameworld.spec import Spec, load_spec
from sameworld.store.log import TABLES


def test_the_tables_names_are_those_of_the_log() -> None:
    assert set(NAMES) == set(TABLES)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"impresions": {"files": "{day}/*.csv"}}, "'source.tables.impresions' cannot be used: got 'impresions'; "
         "wanted 'impressions' (the nearest known)"),
        ({"requests": {"file": "{day}/*.csv"}}, "'source.tables.requests.file'; wanted 'source.tables.requests.files'"),
        ({"requests": {"files": "/logs/{day}/*.csv"}}, "relative to source.uri"),
        ({"requests": {"files": "../{day}/*.csv"}}, "relative to source.uri"),
        ({"requests": {"files": "logs/*.csv"}}, "a pattern of *, ? and {day}"),
        ({"requests": {"files": "{date}/*.csv"}}, "a pattern of *, ? and {day}"),
        ({"requests": {"files": "{day}/*.xlsx", "select": "SELECT 1"}}, "the ending of '{day}/*.xlsx' says none"),
        ({"requests": {"files": "{day}/*.csv"}}, "a select for files of format csv"),
        ({"requests": {"files": "{day}.csv", "select": "SELECT 1"}}, "where no folder is named for it"),
        ({"requests": {"files": "{day}/*.parquet", "ready": "{day}/*.ok"}}, "one file's name, without * or ?"),
        ({"requests": {"files": "{day}/*.csv", "select": "sql/a.sql"}}, "a path is read where a spec file names it"),
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_meant_is_refused_by_its_key(tmp_path: Path, tables: dict, said: str) -> None:
    tree = tree_of(tmp_path)
    tree["source"]["tables"] = tables
    with pytest.raises(Refused, match=re.escape(said)):
        Spec.parse(tree)


def test_only_a_drop_is_mapped(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    tree["source"]["kind"] = "open_bandit"
    with pytest.raises(
        Refused, match=re.escape("tables map its files, and a source of kind 'open_bandit' has its own")
    ):
        Spec.parse(tree)


def spec_file(folder: Path, text: str, *, sql: str = REQUESTS, place: str = "sql/a.sql") -> Path:
    """Write a spec with its SQL beside it."""
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(sql, encoding="utf-8")
    (folder / "spec.toml").write_text(f'base = "baseline"\n{text}', encoding="utf-8")
    return folder / "spec.toml"


TABLE = '[source.tables.requests]\nfiles = "dt={{day}}/*.csv"\nselect = "{}"\n'


def test_the_sqls_text_is_the_specs_and_its_place_is_nobodys(tmp_path: Path) -> None:
    one = load_spec(spec_file(tmp_path / "one", TABLE.format("sql/a.sql")), known=BASES)
    two = load_spec(spec_file(tmp_path / "two", TABLE.format("b.sql"), place="b.sql"), known=BASES)
    other = load_spec(spec_file(tmp_path / "three", TABLE.format("sql/a.sql"), sql="SELECT 1 FROM files"), known=BASES)
    assert one.source.tables["requests"].select == REQUESTS
    assert one.digest() == two.digest() == Spec.parse(one.tree()).digest() != other.digest()
    assert "a.sql" not in str(one.tree())


def test_a_bases_sql_lies_beside_the_base_and_a_change_may_replace_it(tmp_path: Path) -> None:
    spec_file(tmp_path / "below", TABLE.format("sql/a.sql"))
    (tmp_path / "top.toml").write_text('base = "mine"\n[source.tables.requests]\noptional = true\n')
    known = BASES | {"mine": tmp_path / "below" / "spec.toml"}
    spec = load_spec(tmp_path / "top.toml", known=known)
    assert spec.source.tables["requests"].select == REQUESTS
    assert spec.source.tables["requests"].optional
    (tmp_path / "c.sql").write_text("SELECT 2 FROM files")
    changed = load_spec(tmp_path / "top.toml", known=known, changes=["source.tables.requests.select=c.sql"])
    assert changed.source.tables["requests"].select == "SELECT 2 FROM files"


def test_a_view_may_be_named_with_or_without_quotes(tmp_path: Path) -> None:
    text = '[source.tables.{}]\nfiles = "{{day}}/*.csv"\nselect = "SELECT 1 FROM files"\n'
    specs = [load_spec(spec_file(tmp_path / name, text.format(table)), known=BASES)
             for name, table in (("one", "features.stats"), ("two", '"features.stats"'))]  # fmt: skip
    assert list(specs[0].source.tables) == ["features.stats"]
    assert specs[0].digest() == specs[1].digest()


def test_an_sql_file_that_is_not_there_is_refused_with_its_path(tmp_path: Path) -> None:
    path = spec_file(tmp_path, TABLE.format("sql/gone.sql"))
    with pytest.raises(Refused, match=re.escape(f"cannot read a table's SQL: got {tmp_path / 'sql/gone.sql'}")):
        load_spec(path, known=BASES)


def test_a_fault_names_the_sqls_file_and_the_day(tmp_path: Path) -> None:
    write_csv(tmp_path / "drop")
    path = spec_file(tmp_path, TABLE.format("sql/a.sql"), sql="SELECT nope FROM files")
    source = load_spec(path, known=BASES, changes=[f"source.uri={tmp_path / 'drop'}"]).source
    with pytest.raises(Refused, match=re.escape("sql/a.sql over day=2026-03-01 fails: got Binder Error")):
        rows_of(open_source(source).day(DAY))


# --- builders
