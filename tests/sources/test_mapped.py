"""A log of another shape, mapped by SQL: equal to its export, the same again, and nothing that the SQL could reach."""

import gzip
import re
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path

import boto3
import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from s3_server import a_bucket, moto_server, point_at
from sources.mapped_logs import (
    BASES,
    DAY,
    EXAMPLE,
    REQUESTS,
    SHOWN,
    TIMES,
    both_shapes,
    drop_of,
    example_script,
    example_spec,
    lines,
    log_of,
    mapped,
    rows_by_key,
    rows_of,
    tree_of,
    write_csv,
)
from whole.report_contract import faults
from whole.small_days import run

from sameworld.mapped_table import NAMES
from sameworld.records import Blocked, NotYet, Refused
from sameworld.sources import claim_root, open_source
from sameworld.sources.contract import LAYOUTS
from sameworld.sources.mapped_drop import MappedDrop
from sameworld.sources.sql_engine import engine_over
from sameworld.spec import SourceSpec, Spec, load_spec
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log import TABLES
from tasks import ingest

STATS = "features.item_stats"
KEYS = {name: layout.key for name, layout in LAYOUTS.items()} | {STATS: ("item_id", "available_at")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep mapped rows in a folder of the test's own."""
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- the example


def test_the_mapped_log_has_the_rows_of_the_same_log_exported_by_the_contract(tmp_path: Path) -> None:
    raw, exported = both_shapes()
    ours = log_of(tmp_path / "ours", example_spec(raw))
    export = Spec.parse(example_spec(exported).tree() | {"source": {"kind": "drop", "uri": str(exported)}})
    theirs = log_of(tmp_path / "theirs", export)
    assert ours.views() == theirs.views() == ("item_stats",)
    for table, key in KEYS.items():
        assert_frame_equal(rows_by_key(ours, table, key), rows_by_key(theirs, table, key), check_exact=True)
        assert rows_by_key(ours, table, key).height > 100


def test_the_shipped_example_runs_a_whole_day(tmp_path: Path) -> None:
    spec = example_spec(EXAMPLE / "log", "train.max_rounds=20", "evaluate.replicates=100")
    report = run(tmp_path / "root", spec.tree(), "2026-03-14").report
    assert faults(report) == []
    assert report["decision"]["outcome"] in ("PROMOTE", "HOLD", "REJECT")
    assert report["evaluated"]["rows"] > 500
    for sums in report["log"].values():
        assert sums["kept"] == sums["rows_in"] > 0


def test_the_examples_script_writes_the_same_bytes_again(tmp_path: Path) -> None:
    raw, _ = both_shapes()
    example_script().main(tmp_path / "again")
    files = [path.relative_to(raw) for path in sorted(raw.rglob("*")) if path.is_file()]
    assert len(files) == 14 * 4
    assert all((raw / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_another_cache_gives_the_same_bytes_by_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / name))
        day = open_source(example_spec().source).day(date(2026, 3, 5))
        found.append({file.sha256: file.path.read_bytes() for files in day.files.values() for file in files})
    assert found[0] == found[1]
    assert len(found[0]) == 5


# --- what a file's rows are


def test_a_csvs_columns_are_text_and_empty_is_not_the_empty_text(tmp_path: Path) -> None:
    write_csv(tmp_path, f'id,shown,note\n007,{SHOWN},\n1e5,{SHOWN},""\n')
    rows = mapped(tmp_path, f"SELECT id AS request_id, {TIMES}, note AS arm FROM files")
    assert rows.select("request_id", "arm").rows() == [("007", None), ("1e5", "")]


def test_a_line_of_json_stays_text_until_the_sql_takes_it_apart(tmp_path: Path) -> None:
    first = {"id": "r1", "shown": "2026-03-01T11:00:00+01:00", "seed": 2**62 + 1}
    write_csv(tmp_path, lines(first, {"id": "r2", "shown": SHOWN}), name="a.jsonl")
    select = """SELECT line ->> 'id' AS request_id, (line ->> 'seed')::BIGINT AS seed,
                       (line ->> 'shown')::TIMESTAMPTZ AS shown_at, (line ->> 'shown')::TIMESTAMPTZ AS arrived_at
                FROM files"""
    rows = mapped(tmp_path, select, files="dt={day}/*.jsonl")
    assert rows["seed"].to_list() == [2**62 + 1, None]
    assert rows["shown_at"].to_list() == [datetime(2026, 3, 1, 10, tzinfo=UTC)] * 2


def test_parquet_is_read_with_its_types_and_columns_by_name(tmp_path: Path) -> None:
    write_csv(tmp_path)
    rows = pl.DataFrame({"id": ["a"], "shown": [datetime(2026, 3, 1, 10, tzinfo=UTC)], "price": [1.5]})
    rows.write_parquet(tmp_path / f"dt={DAY}/1.parquet")
    rows.select("shown", "id").write_parquet(tmp_path / f"dt={DAY}/2.parquet")
    found = mapped(tmp_path, REQUESTS.replace(" FROM", ", price AS tau FROM"), files="dt={day}/*.parquet")
    assert sorted(found["tau"].to_list(), key=str) == [1.5, None]


def test_gzipped_files_are_read_and_not_mixed_with_others(tmp_path: Path) -> None:
    packed = write_csv(tmp_path).with_name("b.csv.gz")
    packed.write_bytes(gzip.compress(f"id,shown\nr9,{SHOWN}\n".encode()))
    assert mapped(tmp_path, files="dt={day}/*.csv.gz")["request_id"].to_list() == ["r9"]
    with pytest.raises(Refused, match=re.escape("wanted all of them .gz, or none")):
        mapped(tmp_path, files="dt={day}/*.csv*", format="csv")


def test_the_day_is_known_to_the_sql_and_zones_are_those_that_it_names(tmp_path: Path) -> None:
    write_csv(tmp_path, "id\nr1\n")
    at = "(getvariable('day') + INTERVAL 1 HOUR) AT TIME ZONE 'Europe/Berlin'"
    rows = mapped(tmp_path, f"SELECT id AS request_id, {at} AS shown_at, {at} AS arrived_at FROM files")
    assert rows["shown_at"].item() == datetime(2026, 3, 1, 0, tzinfo=UTC)


def test_a_day_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    write_csv(tmp_path, "id,shown\n")
    assert mapped(tmp_path).height == 0
    assert taken_in(tmp_path)[0].record["tables"]["requests"]["rows_in"] == 0


def test_a_contract_drops_own_files_can_stand_beside_as_they_are(tmp_path: Path) -> None:
    write_csv(tmp_path)
    rows = mapped(tmp_path)
    rows.write_parquet(tmp_path / f"dt={DAY}/rows.parquet")
    [file] = drop_of(tmp_path, "", files="dt={day}/rows.parquet").day(DAY).files["requests"]
    assert file.path == tmp_path / f"dt={DAY}/rows.parquet"
    assert pl.read_parquet(file.path).equals(rows)


# --- which files, which days


def test_a_pattern_takes_what_it_says_and_no_hidden_file(tmp_path: Path) -> None:
    for name in ("a-1.csv", "b-1.csv", "_a-1.csv", ".a-1.csv", "a-1.csv.tmp"):
        write_csv(tmp_path, f"id,shown\n{name},{SHOWN}\n", name=name)
    write_csv(tmp_path / "deeper", day=DAY)
    assert mapped(tmp_path)["request_id"].sort().to_list() == ["a-1.csv", "b-1.csv"]
    assert mapped(tmp_path, files="dt={day}/_a-?.csv")["request_id"].to_list() == ["_a-1.csv"]


def test_a_file_name_with_signs_of_a_pattern_is_one_file(tmp_path: Path) -> None:
    write_csv(tmp_path, f"id,shown\nr1,{SHOWN}\n", name="a[1]'*.csv")
    write_csv(tmp_path, f"id,shown\nr2,{SHOWN}\n", name="a1'x.csv")
    assert mapped(tmp_path, files="dt={day}/a?1?'*.csv")["request_id"].to_list() == ["r1"]


def test_a_day_is_there_once_every_tables_mark_is(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (write_csv(tmp_path, day=date(2026, 3, 2)).parent / "_SUCCESS").unlink()
    (tmp_path / "dt=2026-3-3").mkdir()
    drop = drop_of(tmp_path)
    assert drop.days() == [DAY]
    with pytest.raises(NotYet, match=re.escape("wanted dt=2026-03-02/_SUCCESS")):
        drop.day(date(2026, 3, 2))


def test_a_mark_may_lie_anywhere_and_name_the_day_twice(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "done").mkdir()
    for name in ("2026-03-01-2026-03-01.ok", "2026-03-02-2026-03-01.ok"):
        (tmp_path / "done" / name).touch()
    assert drop_of(tmp_path, ready="done/{day}-{day}.ok").days() == [DAY]


def test_a_day_without_a_tables_files_is_refused_unless_the_spec_says_otherwise(tmp_path: Path) -> None:
    write_csv(tmp_path)
    with pytest.raises(
        Refused, match=re.escape("day 2026-03-01 has no file of requests: got nothing at dt=2026-03-01/x")
    ):
        drop_of(tmp_path, files="dt={day}/x-*.csv").day(DAY)
    assert drop_of(tmp_path, files="dt={day}/x-*.csv", optional=True).day(DAY).files == {}


def test_a_bucket_maps_as_a_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_csv(tmp_path)
    with moto_server() as address:
        point_at(monkeypatch, address, tmp_path / "cache")
        bucket = a_bucket()
        for path in (file, file.with_name("_SUCCESS")):
            boto3.client("s3").put_object(Bucket=bucket, Key=f"log/dt={DAY}/{path.name}", Body=path.read_bytes())
        remote = MappedDrop(f"s3://{bucket}/log", Spec.parse(tree_of(tmp_path)).source.tables)
        assert remote.days() == [DAY]
        assert rows_of(remote.day(DAY)).equals(mapped(tmp_path))
        assert remote.day(DAY).content == drop_of(tmp_path).day(DAY).content


# --- what names a day


def content(drop: Path, select: str = REQUESTS, **mapping: str) -> dict[str, list[str]]:
    return drop_of(drop, select, **mapping).day(DAY).content


def test_a_days_content_is_the_raw_bytes_and_the_sql_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_csv(tmp_path / name, name=f"{name}.csv")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert content(tmp_path / "one", f"{REQUESTS} -- twice") != content(tmp_path / "one")
    write_csv(tmp_path / "two", f"id,shown\n007,{SHOWN}\n\n", name="two.csv")
    assert content(tmp_path / "one") != content(tmp_path / "two")


def test_the_order_of_files_is_that_of_their_content(tmp_path: Path) -> None:
    for name, ids in (("one", "ab"), ("two", "ba")):
        for number, one in enumerate(ids):
            write_csv(tmp_path / name, f"id,shown\n{one},{SHOWN}\n", name=f"{number}.csv")
    assert mapped(tmp_path / "one").equals(mapped(tmp_path / "two"))


def test_no_sql_runs_for_a_day_that_was_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "drop")
    [first] = taken_in(tmp_path / "drop")
    monkeypatch.setattr("sameworld.sources.mapped_drop.write_rows", lambda *_: pytest.fail("the SQL ran again"))
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "other"))
    assert [one.uri for one in taken_in(tmp_path / "drop")] == [first.uri]


def test_damaged_rows_in_the_cache_are_made_again(tmp_path: Path) -> None:
    write_csv(tmp_path / "drop")
    [file] = drop_of(tmp_path / "drop").day(DAY).files["requests"]
    before = file.path.read_bytes()
    file.path.write_bytes(before[:-9] + b"x" + before[-8:])
    [again] = drop_of(tmp_path / "drop").day(DAY).files["requests"]
    assert again.path.read_bytes() == before


def test_a_file_that_changes_while_it_is_mapped_is_refused(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "drop")
    [file] = drop_of(tmp_path / "drop").day(DAY).files["requests"]
    raw.write_text(f"id,shown\nother,{SHOWN}\n")
    with pytest.raises(Refused, match=re.escape("a.csv changed while it was read")):
        file.path  # noqa: B018
    assert not list((tmp_path / "cache" / "sources").iterdir())


def test_a_changed_raw_file_is_a_changed_day(tmp_path: Path) -> None:
    taken_in(tmp_path / "drop", write=True)
    write_csv(tmp_path / "drop", f"id,shown\nother,{SHOWN}\n")
    with pytest.raises(Refused, match=re.escape("day 2026-03-01 changed after it was taken in")):
        taken_in(tmp_path / "drop")


def test_a_root_belongs_to_one_mapping(tmp_path: Path) -> None:
    write_csv(tmp_path / "drop")
    store, one, two = (
        Store(str(tmp_path / "root")),
        *(source_of(tmp_path / "drop", sql) for sql in (REQUESTS, f"{REQUESTS} ")),
    )
    claim_root(store, one)
    claim_root(store, one)
    with pytest.raises(Refused, match=re.escape("this root belongs to another source")):
        claim_root(store, two)


def test_a_quarantined_row_names_the_days_file_by_its_hash_and_the_rows_place(tmp_path: Path) -> None:
    write_csv(tmp_path / "drop", f"id,shown\na,{SHOWN}\n,{SHOWN}\n")
    [day] = taken_in(tmp_path / "drop")
    rows = day.scan("quarantine").select("file", "row", "reason").collect()
    [file] = drop_of(tmp_path / "drop").day(DAY).files["requests"]
    assert rows.rows() == [(file.sha256, 1, "null_key")]


# --- what is refused


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("SELECT nope FROM files", "got Binder Error: Referenced column \"nope\" not found"),
        ("SELECT nope FROM files", "files has the columns: id, shown"),
        ("SELECT id AS request_id FROM files", "the SQL of requests over day=2026-03-01 lacks column 'shown_at'"),
        (REQUESTS.replace("id AS", "id::DATE AS"), "got Conversion Error"),
        (REQUESTS.replace("id AS request_id", "id"), "wanted request_id (string). select ... AS request_id"),
        (REQUESTS.replace("AS request_id", "AS requestid"), "name it: requestid AS request_id"),
        (REQUESTS.replace("shown::TIMESTAMPTZ AS shown_at", "shown::TIMESTAMP AS shown_at"),
         "gives column 'shown_at' without a zone: got TIMESTAMP; wanted timestamp[us, UTC]. say which zone the log was "
         "written in: shown_at AT TIME ZONE 'UTC' AS shown_at"),
        (REQUESTS.replace(" FROM", ", 1.5 AS tau FROM"), "gives column 'tau' as another kind: got DECIMAL(2,1); "
         "wanted double. cast it: tau::DOUBLE AS tau"),
        (REQUESTS.replace("id AS", "'{}'::JSON AS"), "take its value as text with ->>"),
        (REQUESTS.replace(" FROM", ", 'x' AS surfase FROM"), "'surfase', which requests does not have: got surfase; "
         "wanted surface"),
        (REQUESTS.replace(" FROM", ", shown::DATE AS x_day FROM"), "gives feature 'x_day' as another kind: got DATE"),
        (REQUESTS.replace(" FROM", ", 1 AS x_a, 2 AS x_a FROM"), "gives a column twice: got x_a"),
    ],
)  # fmt: skip
def test_sql_that_does_not_give_the_table_is_refused_with_the_remedy(tmp_path: Path, select: str, said: str) -> None:
    write_csv(tmp_path)
    with pytest.raises(Refused, match=re.escape(said)):
        mapped(tmp_path, select)


def test_a_view_without_a_key_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path)
    with pytest.raises(Refused, match=re.escape("gives no key of a view: got available_at; wanted user_id or item_id")):
        mapped(tmp_path, "SELECT shown::TIMESTAMPTZ AS available_at FROM files", table="features.stats")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("short.csv", b"id,shown\na\n"),
        ("long.csv", b"id,shown\na,b\nc,d,e\n"),
        ("latin.csv", b"id,shown\n\xe4,b\n"),
        ("not.csv.gz", b"id,shown\n"),
        ("cut.jsonl", b'{"id": 1}\n{"id":\n'),
        ("not.parquet", b"PAR1 no more"),
    ],
)
def test_a_file_that_cannot_be_read_blocks_the_day_by_its_name(tmp_path: Path, name: str, body: bytes) -> None:
    write_csv(tmp_path).with_name(name).write_bytes(body)
    select = "SELECT line ->> 'id' AS request_id FROM files" if "json" in name else REQUESTS
    with pytest.raises(Blocked, match=re.escape(f"dt=2026-03-01/{name}")) as caught:
        mapped(tmp_path, select, files=f"dt={{day}}/{name}")
    assert str(tmp_path) not in str(caught.value)


# --- the sandbox

FORBIDDEN = {
    "SELECT * FROM read_text('/etc/passwd')": "read_text()",
    "SELECT * FROM '/etc/passwd'": "a read of '/etc/passwd'",
    "SELECT * FROM glob('/*')": "glob()",
    "SELECT * FROM files, (SELECT sql FROM duckdb_views())": "duckdb_views()",
    "SELECT * FROM information_schema.tables": "a read of 'information_schema.tables'",
    "SELECT * FROM query('SELECT now()')": "query()",
    "COPY files TO 'out.csv'": "COPY",
    "INSTALL httpfs": "LOAD",
    "LOAD httpfs": "LOAD",
    "ATTACH 'other.db'": "ATTACH",
    "PRAGMA version": "PRAGMA",
    "SET threads = 8": "SET",
    "CREATE TABLE more AS SELECT 1": "CREATE",
    "SELECT 1; SELECT 2": "SELECT and SELECT",
    "": "no statement",
    "SELECT random() AS x_draw FROM files": "random()",
    "SELECT age(shown::TIMESTAMP) AS x_age FROM files": "age()",
    "SELECT UUID() AS request_id FROM files": "uuid()",
    "SELECT now() AS shown_at FROM files": "now()",
    "SELECT current_date AS x_day FROM files": "current_date",
    "SELECT CURRENT_TIMESTAMP AS shown_at FROM files": "current_timestamp",
    "SELECT ago(INTERVAL 1 DAY) AS shown_at FROM files": "ago()",
    "SELECT list_transform([1], lambda x: x + random()) AS x_a FROM files": "random()",
    "WITH a AS (SELECT today() AS t FROM files) SELECT * FROM a": "today()",
    "SELECT * FROM files USING SAMPLE 10 ROWS": "a sample",
    "SELECT current_setting('memory_limit') AS x_a FROM files": "current_setting()",
}


@pytest.mark.parametrize("select", FORBIDDEN)
def test_sql_that_reaches_beyond_its_rows_is_refused_before_anything_is_read(tmp_path: Path, select: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"the SQL of requests cannot map a log: got {FORBIDDEN[select]}")):
        drop_of(tmp_path, select or ";")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM rows_of",
        "COPY files TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_paths = ['/etc/passwd']",
        "RESET lock_configuration",
    ],
)
def test_the_engine_by_itself_refuses_what_lies_outside_its_files(tmp_path: Path, statement: str) -> None:
    with engine(tmp_path, write_csv(tmp_path)) as opened, pytest.raises(duckdb.Error):
        opened.execute(statement.format(folder=tmp_path)).fetchall()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"dt={DAY}"]


def test_the_engine_works_where_the_network_and_the_home_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with engine(tmp_path, write_csv(tmp_path)) as opened:
        select = "SELECT id, '[1]'::JSON ->> 0, timezone('Europe/Berlin', shown::TIMESTAMPTZ)::VARCHAR FROM files"
        assert opened.execute(select).fetchall() == [("007", "1", "2026-03-01 11:00:00")]
    assert not (tmp_path / "nowhere").exists()


def test_the_clock_of_the_machine_does_not_move_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    write_csv(tmp_path, "id,shown\na,2026-03-01 10:00:00\n")
    assert mapped(tmp_path)["shown_at"].item() == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_columns_of_a_log_may_be_called_as_functions_are(tmp_path: Path) -> None:
    write_csv(tmp_path, f"id,shown,random,now\nr1,{SHOWN},a,b\n")
    rows = mapped(tmp_path, REQUESTS.replace(" FROM", ", random AS arm, files.now AS branch FROM"))
    assert rows.select("arm", "branch").rows() == [("a", "b")]


# --- the spec


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


def source_of(drop: Path, select: str = REQUESTS) -> SourceSpec:
    """Return the part of a spec that names a mapped drop."""
    return Spec.parse(tree_of(drop, select)).source


def taken_in(drop: Path, *, write: bool = False) -> list[Artifact]:
    """Ingest a drop's first day into the root beside it."""
    if write:
        write_csv(drop)
    store = Store(str(drop.parent / "root"))
    uris = ingest.run(store=store, spec=Spec.parse(tree_of(drop)), cutoff="2026-03-02T00:00:00Z")
    return [store.open(uri) for uri in uris]


def engine(folder: Path, path: Path) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Open the engine over one file."""
    return engine_over([path], kind="csv", gzipped=False, delimiter=",", day=DAY, scratch=folder / "spill")
