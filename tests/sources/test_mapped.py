"""A log of another shape, mapped by SQL: equal to its export, the same again, and nothing that the SQL could reach."""

import gzip
import re
from datetime import UTC, date, datetime
from pathlib import Path

import boto3
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from s3_server import a_bucket, moto_server, point_at
from sources.mapped_logs import (
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
    source_of,
    taken_in,
    tree_of,
    write_csv,
)
from whole.report_contract import faults
from whole.small_days import run

from sameworld.records import Blocked, NotYet, Refused
from sameworld.sources import claim_root, open_source
from sameworld.sources.contract import LAYOUTS
from sameworld.sources.mapped_drop import MappedDrop
from sameworld.spec import Spec
from sameworld.store.artifacts import Store

STATS = "features.item_stats"
KEYS = {name: layout.key for name, layout in LAYOUTS.items()} | {STATS: ("item_id", "available_at")}


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
