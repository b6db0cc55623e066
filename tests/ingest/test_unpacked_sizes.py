"""Files of a few kilobytes that unpack to gigabytes: blocked by name, or quarantined, in bounded memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from core.core_builders import TESTS
from ingest.tiny_drops import CANDIDATES, impression, request, table_of, write_day

MIB = 2**20
MOST_MB = 1500.0
TAKE_IN = """
import json, sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ingest.tiny_drops import take_in
from sameworld.records import Blocked
try:
    told = {"sums": take_in(Path(sys.argv[2]), 1)[0].record["tables"], "blocked": ""}
except Blocked as error:
    told = {"sums": {}, "blocked": str(error)}
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({**told, "peak_mb": int(peak.split()[1]) / 1024}))
"""


def taken_in(drop: Path) -> dict[str, Any]:
    """Take a drop in by a process of its own; say what came of it and how much memory it took at most."""
    command = [sys.executable, "-c", TAKE_IN, str(TESTS), str(drop)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def repeated(rows: pa.Table, doublings: int, **options: Any) -> bytes:
    """Write rows as one row group, and name it in the footer two to the power of ``doublings`` times."""
    out, foot = io.BytesIO(), io.BytesIO()
    pq.write_table(rows, out, row_group_size=len(rows), compression="zstd", store_schema=False, **options)
    footer = pq.ParquetFile(io.BytesIO(out.getvalue())).metadata
    body = out.getvalue()[: -8 - footer.serialized_size]
    for _ in range(doublings):
        footer.append_row_groups(footer)
    footer.write_metadata_file(foot)
    return body + foot.getvalue()[4:]  # without the magic number at its head


def alike(count: int, **columns: pa.Array) -> pa.Table:
    """Return one request a million times over: equal values have no size but in their number."""
    one = table_of([request()])
    known = {name: pa.repeat(one[name][0], count) for name in one.column_names}
    return pa.table({**known, **columns})


def long_text(mebibytes: int) -> pa.Table:
    return table_of([request(user_id="x" * (mebibytes * MIB))])


def many_candidates(count: int) -> pa.Table:
    entries = pa.StructArray.from_arrays(
        [pa.repeat(pa.scalar("a"), count), pa.repeat(pa.scalar(1.0), count)], ["item_id", "score"]
    )
    lists = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), entries).cast(CANDIDATES)
    return table_of([request()]).append_column("candidates", lists)


BOMBS: dict[str, Callable[[], bytes]] = {
    "a billion equal rows": lambda: repeated(alike(MIB), 10),
    "a billion equal rows with checksums": lambda: repeated(alike(MIB), 10, write_page_checksum=True),
    "a text of 64 MiB, 64 times": lambda: repeated(long_text(64), 6, use_dictionary=False),
    "four million candidates, 64 times": lambda: repeated(many_candidates(4 * MIB), 6),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_fault_59_a_file_of_a_thousand_times_its_size_blocks_the_day_by_its_name(
    tmp_path: Path, bomb: Callable[[], bytes]
) -> None:
    day = write_day(tmp_path / "drop", 1)
    (day / "requests").mkdir()
    (day / "requests" / "part-0.parquet").write_bytes(bomb())
    told = taken_in(tmp_path / "drop")
    assert told["blocked"].startswith("day=2026-03-01/requests/part-0.parquet unpacks from ")
    assert told["peak_mb"] < 600


@pytest.mark.parametrize("column", ["item_id", "user_id", "x_text"])
def test_fault_59_a_long_text_in_thousands_of_rows_is_quarantined_and_not_written_out_for_each(
    tmp_path: Path, column: str
) -> None:
    count, long = 20_000, "x" * MIB
    rows = table_of([impression(str(number), number + 1) for number in range(count)])
    text = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([long]))
    rows = rows.drop_columns([column] if column in rows.column_names else []).append_column(column, text)
    day = write_day(tmp_path / "drop", 1)
    (day / "impressions").mkdir()
    pq.write_table(rows, day / "impressions" / "part-0.parquet", compression="zstd", store_schema=False)
    told = taken_in(tmp_path / "drop")
    assert told["sums"]["impressions"]["quarantined"] == {"bad_text": count}
    assert told["peak_mb"] < MOST_MB
    assert sum(file.stat().st_size for file in (tmp_path / "root").rglob("*.parquet")) < 100 * MIB


def test_a_real_files_rows_are_far_from_any_bound(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression(str(n), n + 1, x_price=0.0) for n in range(100_000)])
    told = taken_in(tmp_path / "drop")
    assert (told["blocked"], told["sums"]["impressions"]["kept"]) == ("", 100_000)
