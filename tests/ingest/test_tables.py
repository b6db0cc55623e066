"""Reading a day's files: every Arrow kind that the contract allows comes out the same, every other is named."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest.tiny_drops import at, impression, outcome, request, sums, sums_of_day, table_of, take_in, write_day
from worlds.dirt import (
    change_type,
    drop_column,
    flip_byte,
    invalid_utf8,
    naive_timestamps,
    rename_column,
    truncate_file,
)

from sameworld.records import Blocked, Refused
from sameworld.sources.drop import DropFile
from sameworld.sources.page_checks import verify_pages
from sameworld.sources.tables import read_table

US = 1_772_361_000_123_456  # March 1 2026, 10:30:00.123456 UTC


def kept(drop: Path, table: str = "impressions") -> pl.DataFrame:
    return take_in(drop, 1)[0].scan(table).collect()


def write(drop: Path, column: str, values: pa.Array) -> Path:
    rows = table_of([impression(str(number), number + 1) for number in range(len(values))])
    place = rows.column_names.index(column) if column in rows.column_names else len(rows.column_names)
    rows = rows.set_column(place, column, values) if column in rows.column_names else rows.append_column(column, values)
    return write_day(drop, 1, impressions=rows)


STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("kind", [*STRINGS, pa.dictionary(pa.int32(), pa.large_string())], ids=str)
def test_every_arrow_string_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(["a", "b", "a"])
    write(
        tmp_path / "drop", "x_word", values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    )
    assert kept(tmp_path / "drop")["x_word"].to_list() == ["a", "b", "a"]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+02:00"])
def test_times_become_utc_microseconds(tmp_path: Path, unit: str, zone: str) -> None:
    whole = US // 1000 * 1000
    values = pa.array([whole], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone))
    write(tmp_path / "drop", "shown_at", values)
    column = kept(tmp_path / "drop")["shown_at"]
    assert (column.dtype, column.to_physical().to_list()) == (pl.Datetime("us", "UTC"), [whole])


def test_an_offset_of_half_an_hour_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "drop", "shown_at", pa.array([US], pa.timestamp("us", "+05:30")))
    with pytest.raises(Refused, match=re.escape("unknown zone: got +05:30; wanted timestamp[us, UTC]")):
        take_in(tmp_path / "drop", 1)


def test_nanoseconds_are_cut_off_below_the_microsecond(tmp_path: Path) -> None:
    write(tmp_path / "drop", "shown_at", pa.array([US * 1000 + 999], pa.timestamp("ns", "UTC")))
    assert kept(tmp_path / "drop")["shown_at"].to_physical().to_list() == [US]


def test_fault_18_milliseconds_too_large_for_microseconds_do_not_wrap_into_a_plausible_time(tmp_path: Path) -> None:
    wraps = (2**64 + US * 1) // 1000 + 1
    write(tmp_path / "drop", "shown_at", pa.array([wraps, -wraps], pa.timestamp("ms", "UTC")))
    got = sums_of_day(tmp_path / "drop", "impressions")["quarantined"]
    assert sum(got.values()) == 2


@pytest.mark.parametrize("table", ["impressions", "outcomes"])
def test_fault_19_a_naive_timestamp_is_refused_with_the_remedy(tmp_path: Path, table: str) -> None:
    day = write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome()])
    naive_timestamps(day, table, "arrived_at")
    wanted = f"day=2026-03-01/{table}/part-0.parquet: column 'arrived_at' has timestamps without a zone"
    with pytest.raises(Refused, match=re.escape(wanted)) as error:
        take_in(tmp_path / "drop", 1)
    assert error.value.remedy == "write them with tz=UTC"


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()], ids=str)
def test_positions_of_any_whole_kind_are_int32(tmp_path: Path, kind: pa.DataType) -> None:
    write(tmp_path / "drop", "position", pa.array([1, 2], kind))
    assert kept(tmp_path / "drop")["position"].to_list() == [1, 2]
    assert kept(tmp_path / "drop").schema["position"] == pl.Int32


def test_a_position_beyond_int32_is_bad_not_wrapped(tmp_path: Path) -> None:
    write(tmp_path / "drop", "position", pa.array([1, 2**32 + 1, -(2**32) + 2], pa.int64()))
    assert sums_of_day(tmp_path / "drop", "impressions") == sums(3, bad_position=2)


def test_nan_in_a_feature_is_null_and_numbers_keep_their_kind(tmp_path: Path) -> None:
    write(tmp_path / "drop", "x_small", pa.array([1.5, math.nan, None], pa.float32()))
    small = kept(tmp_path / "drop")["x_small"]
    assert (small.to_list(), small.dtype) == ([1.5, None, None], pl.Float32)


def test_nan_propensity_is_not_known(tmp_path: Path) -> None:
    write(tmp_path / "drop", "propensity", pa.array([math.nan, 1.0]))
    assert kept(tmp_path / "drop")["propensity"].to_list() == [None, 1.0]


def test_null_reasons_are_pairs_of_feature_and_reason(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression(null_reason=[("x_price", "timeout")])])
    assert kept(tmp_path / "drop")["null_reason"].to_list() == [[{"key": "x_price", "value": "timeout"}]]


def test_candidates_keep_their_order_whatever_else_their_structs_hold(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("score", pa.float32()), ("rank", pa.int8()), ("item_id", pa.large_string())]))
    rows = [request(candidates=[{"score": 0.5, "rank": 1, "item_id": "b"}, {"score": 2, "rank": 2, "item_id": "a"}])]
    write_day(tmp_path / "drop", 1, requests=table_of(rows, {"candidates": kind}))
    wanted = [[{"item_id": "b", "score": 0.5}, {"item_id": "a", "score": 2.0}]]
    assert kept(tmp_path / "drop", "requests")["candidates"].to_list() == wanted


def test_optional_columns_that_are_missing_are_null(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, requests=[request()])
    row = kept(tmp_path / "drop", "requests").row(0, named=True)
    assert [row[name] for name in ("tau", "epsilon", "seed", "candidates", "branch")] == [None] * 5


def test_fault_05_an_unknown_column_is_ignored_and_listed(tmp_path: Path) -> None:
    write(tmp_path / "drop", "debug_trace", pa.array(["t"]))
    [day] = take_in(tmp_path / "drop", 1)
    assert "debug_trace" not in day.scan("impressions").collect_schema()
    assert day.record["ignored"] == {"impressions": ["debug_trace"]}


def test_a_views_other_columns_are_its_values_and_what_is_no_value_is_listed(tmp_path: Path) -> None:
    row = {"item_id": "a", "available_at": at(1, 3), "quality": "high", "made_at": at(1, 2)}
    write_day(tmp_path / "drop", 1, features__stats=table_of([row], {"made_at": pa.timestamp("us", tz="UTC")}))
    [day] = take_in(tmp_path / "drop", 1)
    assert day.record["features"] == {"features.stats": {"quality": "string"}}
    assert day.record["ignored"] == {"features.stats": ["made_at"]}


def test_a_view_without_a_key_is_blocked(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, features__stats=[{"session_id": "a", "available_at": at(1, 3)}])
    with pytest.raises(Blocked, match=re.escape("view features.stats has no key: got available_at, session_id")):
        take_in(tmp_path / "drop", 1)


def test_a_feature_that_is_null_throughout_is_as_one_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "drop", "x_gone", pa.nulls(2))
    [day] = take_in(tmp_path / "drop", 1)
    assert "x_gone" not in day.record["features"]["impressions"]
    assert day.record["ignored"] == {}


def test_fault_04_a_missing_column_blocks_the_day_with_the_files_name(tmp_path: Path) -> None:
    drop_column(write_day(tmp_path / "drop", 1, impressions=[impression()]), "impressions", "position")
    message = "day=2026-03-01/impressions/part-0.parquet lacks column 'position' (int32)"
    with pytest.raises(Blocked, match=re.escape(message)) as error:
        take_in(tmp_path / "drop", 1)
    assert error.value.exit_code == 1


def test_fault_04_a_renamed_column_blocks_the_day_with_both_names(tmp_path: Path) -> None:
    rename_column(write_day(tmp_path / "drop", 1, outcomes=[outcome()]), "outcomes", "happened_at", "happend_at")
    with pytest.raises(
        Blocked, match=re.escape("lacks column 'happened_at' (timestamp[us, UTC]); it has 'happend_at'")
    ):
        take_in(tmp_path / "drop", 1)


WRONG: list[tuple[str, str, pa.DataType, str]] = [
    ("impressions", "position", pa.string(), "got string; wanted int32"),
    ("impressions", "position", pa.float64(), "got float64; wanted int32"),
    ("impressions", "propensity", pa.string(), "got string; wanted double"),
    ("impressions", "request_id", pa.binary(), "got binary; wanted string"),
    (
        "impressions",
        "x_price",
        pa.decimal128(9, 2),
        "got decimal(precision=9, scale=2); wanted a float, int, bool or string",
    ),
    ("outcomes", "value", pa.string(), "got string; wanted double"),
    ("outcomes", "retracted", pa.int8(), "got int8; wanted bool"),
    ("outcomes", "arrived_at", pa.int64(), "got int64; wanted timestamp[us, UTC]"),
]


@pytest.mark.parametrize(("table", "column", "kind", "message"), WRONG, ids=[f"{w[1]}-{w[2]}" for w in WRONG])
def test_fault_06_a_wrong_type_is_named_and_not_cast(
    tmp_path: Path, table: str, column: str, kind: pa.DataType, message: str
) -> None:
    day = write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome()])
    change_type(day, table, column, kind)
    with pytest.raises(
        Blocked, match=re.escape(f"{table}/part-0.parquet: column {column!r} has a wrong type: {message}")
    ):
        take_in(tmp_path / "drop", 1)


def test_fault_06_files_of_one_day_agree_on_what_a_feature_is(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=table_of([impression("a", x_price=1)], {"x_price": pa.int64()}))
    write_day(tmp_path / "drop", 1, impressions=table_of([impression("b", 2, x_price=True)], {"x_price": pa.bool_()}))
    with pytest.raises(Blocked, match=re.escape("column 'x_price' has a wrong type: got ")):
        take_in(tmp_path / "drop", 1)


def test_whole_numbers_and_fractions_of_one_feature_are_fractions(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=table_of([impression("a", x_price=1)], {"x_price": pa.int64()}))
    write_day(tmp_path / "drop", 1, impressions=[impression("b", 2, x_price=0.5)])
    assert sorted(kept(tmp_path / "drop")["x_price"].to_list()) == [0.5, 1.0]


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_fault_02_a_truncated_file_blocks_the_day_with_its_name(tmp_path: Path, keep: float) -> None:
    day = write_day(tmp_path / "drop", 1, impressions=[impression()], outcomes=[outcome()])
    truncate_file(day / "outcomes" / "part-0.parquet", keep)
    with pytest.raises(Blocked, match=re.escape("day=2026-03-01/outcomes/part-0.parquet is no readable Parquet file")):
        take_in(tmp_path / "drop", 1)


def test_fault_02_any_flipped_byte_of_checksummed_pages_is_noticed(tmp_path: Path) -> None:
    day = write_day(tmp_path / "drop", 1)
    (day / "impressions").mkdir()
    file, rows = day / "impressions" / "part-0.parquet", [impression(str(n), n + 1, x_price=n * 0.7) for n in range(50)]
    pq.write_table(table_of(rows), file, write_page_checksum=True, compression="none", use_dictionary=False)
    chunk = pq.read_metadata(file).row_group(0).column(7)
    assert chunk.path_in_schema == "x_price"
    flip_byte(file, chunk.data_page_offset + chunk.total_compressed_size - 3)
    with pytest.raises(Blocked, match=re.escape("impressions/part-0.parquet is no readable Parquet file")):
        take_in(tmp_path / "drop", 1)


def test_fault_02_flipped_bytes_anywhere_give_typed_errors_or_a_drop_that_adds_up(tmp_path: Path) -> None:
    source = write_day(
        tmp_path / "source", 1, impressions=[impression(str(n), n + 1, x_price=n * 0.7) for n in range(9)]
    )
    content = (source / "impressions" / "part-0.parquet").read_bytes()
    outcomes = set()
    for number, offset in enumerate(range(5, len(content), len(content) // 24)):
        day = write_day(tmp_path / str(number) / "drop", 1)
        (day / "impressions").mkdir()
        (day / "impressions" / "part-0.parquet").write_bytes(content)
        flip_byte(day / "impressions" / "part-0.parquet", offset)
        outcomes.add(_outcome(tmp_path / str(number) / "drop"))
    assert outcomes == {"adds up", "Blocked"}


def _outcome(drop: Path) -> str:
    try:
        got: dict[str, Any] = sums_of_day(drop, "impressions")
    except (Blocked, Refused) as error:
        return type(error).__name__
    told = got["kept"] + got["duplicates"] + got["conflicts"] + sum(got["quarantined"].values())
    return "adds up" if told == got["rows_in"] else "lost rows"


TEXTS = [("impressions", "item_id"), ("impressions", "x_word"), ("impressions", "user_id")]


@pytest.mark.parametrize(("table", "column"), TEXTS)
def test_fault_14_text_that_is_no_utf8_goes_to_quarantine_and_stays_legible(
    tmp_path: Path, table: str, column: str
) -> None:
    rows = [impression(name, number + 1, x_word="w") for number, name in enumerate("abc")]
    invalid_utf8(write_day(tmp_path / "drop", 1, impressions=rows, outcomes=[outcome("b")]), table, column)
    [day] = take_in(tmp_path / "drop", 1)
    assert day.record["tables"][table] == sums(3, bad_text=1)
    bad = day.scan("quarantine").collect().row(0, named=True)
    assert (bad["table"], bad["row"], bad["reason"]) == (table, 0, "bad_text")
    assert r"\\xff" in bad["content"]


def test_fault_14_a_candidates_id_that_is_no_utf8_goes_to_quarantine(tmp_path: Path) -> None:
    inner = pa.struct([("item_id", pa.binary()), ("score", pa.float64())])
    rows = table_of([request("r1"), request("r2")])
    lists = pa.array([[{"item_id": b"\xff", "score": 1.0}], [{"item_id": b"ok", "score": 1.0}]], pa.list_(inner))
    text = pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float64())]))
    write_day(tmp_path / "drop", 1, requests=rows.append_column("candidates", _renamed(lists, text)))
    assert sums_of_day(tmp_path / "drop", "requests") == sums(2, bad_text=1)


def _renamed(lists: pa.Array, kind: pa.DataType) -> pa.Array:
    """Give bytes the type of text, unchecked."""
    inner = lists.values
    ids = pa.StringArray.from_buffers(len(inner), *inner.field(0).buffers()[1:])
    structs = pa.StructArray.from_arrays([ids, inner.field(1)], fields=list(kind.value_type))
    return pa.ListArray.from_arrays(lists.offsets, structs)


def test_fault_04_a_file_without_any_column_blocks_the_day(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, outcomes=pa.table({}))
    with pytest.raises(Blocked, match=re.escape("outcomes/part-0.parquet lacks column 'request_id' (string)")):
        take_in(tmp_path / "drop", 1)


def test_fault_02_a_flipped_bit_in_the_footer_gives_a_typed_error_or_a_table(tmp_path: Path) -> None:
    content, footer = _with_footer(tmp_path / "good.parquet", write_page_checksum=False)
    outcomes = {_opening(_flipped(content, at), tmp_path / "bad.parquet") for at in footer[::13]}
    assert {"a table", "Blocked"} <= outcomes <= {"a table", "Blocked", "Refused"}


def test_fault_02_no_flipped_bit_of_a_checksummed_files_footer_ends_the_process(tmp_path: Path) -> None:
    content, footer = _with_footer(tmp_path / "good.parquet", write_page_checksum=True)
    assert {_verifying(_flipped(content, at), tmp_path / "bad.parquet") for at in footer} == {"sound", "damaged"}


def _with_footer(file: Path, *, write_page_checksum: bool) -> tuple[bytes, range]:
    """Write a file; return its bytes and the places of its footer."""
    pq.write_table(table_of([impression()]), file, write_page_checksum=write_page_checksum)
    content = file.read_bytes()
    return content, range(len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content))


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _opening(content: bytes, file: Path) -> str:
    file.write_bytes(content)
    try:
        read_table("impressions", [DropFile("part-0.parquet", "", lambda: file)])
    except (Blocked, Refused) as error:
        return type(error).__name__
    return "a table"


def _verifying(content: bytes, file: Path) -> str:
    file.write_bytes(content)
    try:
        verify_pages(file)
    except (OSError, ValueError, pa.ArrowException):
        return "damaged"
    return "sound"
