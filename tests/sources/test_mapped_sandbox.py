"""What the SQL that maps a log can reach: its rows, and nothing of the machine, the network or the clock."""

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from sources.mapped_logs import (
    DAY,
    REQUESTS,
    SHOWN,
    drop_of,
    engine,
    mapped,
    write_csv,
)

from sameworld.records import Refused

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
