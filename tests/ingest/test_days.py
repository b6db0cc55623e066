"""Taking in days: which are there, the same drop twice, changed and late days, what a cutoff sees, folder and S3."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from ingest.tiny_drops import (
    at,
    change_price,
    end_of,
    impression,
    outcome,
    request,
    resolved,
    spec_of,
    store_beside,
    table_of,
    take_in,
    write_day,
)
from moto.server import ThreadedMotoServer
from worlds.dirt import remove_success

from sameworld.records import Blocked, Cannot, NotYet, Refused
from sameworld.store.artifacts import Artifact, Store
from sameworld.store.log import Log, deliveries
from sameworld.store.step import Work, step
from tasks import ingest, resolve


def three_days(drop: Path) -> Path:
    for day in (1, 2, 3):
        rows = [impression(f"i{day}", day, shown_at=at(day, 10), arrived_at=at(day, 11))]
        write_day(drop, day, impressions=rows, outcomes=[outcome(f"i{day}", arrived_at=at(day, 13))])
    return drop


def bytes_of(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.path(name).read_bytes() for name in artifact.files}


def written(drop: Path) -> list[Path]:
    return sorted((drop.parent / "root").rglob("*"))


def test_fault_01_a_missing_day_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    remove_success(three_days(tmp_path / "drop") / "day=2026-03-02")
    with pytest.raises(NotYet, match=re.escape("day 2026-03-02 of the drop is not there yet")) as error:
        take_in(tmp_path / "drop", 3)
    assert error.value.exit_code == 3
    assert written(tmp_path / "drop") == []


def test_fault_01_the_cutoffs_own_day_must_be_there(tmp_path: Path) -> None:
    three_days(tmp_path / "drop")
    with pytest.raises(NotYet, match=re.escape("day 2026-03-04 of the drop is not there yet")):
        take_in(tmp_path / "drop", 4)


def test_fault_01_a_drop_without_any_complete_day_is_not_yet_there(tmp_path: Path) -> None:
    remove_success(write_day(tmp_path / "drop", 1, impressions=[impression()]))
    with pytest.raises(NotYet, match=re.escape("no day of the drop is there yet")):
        take_in(tmp_path / "drop", 1)


def test_days_after_the_cutoff_are_not_looked_at(tmp_path: Path) -> None:
    day = three_days(tmp_path / "drop") / "day=2026-03-03"
    (day / "impressions" / "part-0.parquet").write_bytes(b"noise")
    assert [one.record["day"] for one in take_in(tmp_path / "drop", 2)] == ["2026-03-01", "2026-03-02"]


def test_a_day_that_has_not_ended_by_the_cutoff_is_not_taken_in(tmp_path: Path) -> None:
    store, spec = store_beside(tmp_path / "drop"), spec_of(three_days(tmp_path / "drop"))
    assert len(ingest.run(store=store, spec=spec, cutoff="2026-03-02T23:59:59.999999Z")) == 1


def test_fault_10_the_same_drop_twice_is_a_no_op(tmp_path: Path) -> None:
    store, spec = store_beside(tmp_path / "drop"), spec_of(three_days(tmp_path / "drop"))
    first = ingest.taken_in(store=store, spec=spec, cutoff=end_of(3))
    before = written(tmp_path / "drop")
    second = ingest.taken_in(store=store, spec=spec, cutoff=end_of(3))
    assert [one.reused for one in first] == [False] * 3
    assert second == [one._replace(reused=True) for one in first]
    assert written(tmp_path / "drop") == before


def test_a_changed_day_is_refused_with_the_two_ways_out(tmp_path: Path) -> None:
    take_in(three_days(tmp_path / "drop"), 3)
    change_price(tmp_path / "drop", 2)
    with pytest.raises(Refused, match=re.escape("day 2026-03-02 changed after it was taken in")) as error:
        take_in(tmp_path / "drop", 3)
    assert error.value.remedy == "deliver the correction in a later day, where it arrived; or run with --redeliver"


def test_fault_23_a_redelivery_is_seen_from_its_cutoff_on_and_older_cutoffs_keep_the_old_rows(tmp_path: Path) -> None:
    old = [one.uri for one in take_in(three_days(tmp_path / "drop"), 2)]
    change_price(tmp_path / "drop", 2)
    new = [one.uri for one in take_in(tmp_path / "drop", 3, redeliver=True)]
    assert new[0] == old[0]
    assert new[1] != old[1]
    assert [one.uri for one in take_in(tmp_path / "drop", 2)] == old
    assert [one.uri for one in take_in(tmp_path / "drop", 3)] == new
    [numbers] = [
        [one.number for one in of_day]
        for day, of_day in deliveries(store_beside(tmp_path / "drop")).items()
        if day.day == 2
    ]
    assert numbers == [1, 2]


def test_a_day_deleted_from_the_drop_stays_in_the_log(tmp_path: Path) -> None:
    uris = [one.uri for one in take_in(three_days(tmp_path / "drop"), 3)]
    shutil.rmtree(tmp_path / "drop" / "day=2026-03-01")
    assert [one.uri for one in take_in(tmp_path / "drop", 3)] == uris


def test_a_day_that_is_gone_from_drop_and_root_is_refused(tmp_path: Path) -> None:
    take_in(three_days(tmp_path / "drop"), 3)
    shutil.rmtree(tmp_path / "drop" / "day=2026-03-01")
    shutil.rmtree(tmp_path / "root" / "artifacts" / "ingest")
    with pytest.raises(Refused, match=re.escape("day 2026-03-01 is gone from the drop and from the root")):
        take_in(tmp_path / "drop", 3)


@pytest.mark.parametrize("later", ["noise", "nothing", "other rows"])
def test_fault_20_24_an_older_cutoff_gives_the_same_bytes_whatever_arrives_later(tmp_path: Path, later: str) -> None:
    want = bytes_of(resolved(three_days(tmp_path / "a" / "drop"), 2))
    drop = three_days(tmp_path / "b" / "drop")
    late = drop / "day=2026-03-03"
    shutil.rmtree(late)
    if later == "noise":
        late.mkdir()
        (late / "impressions").mkdir()
        (late / "impressions" / "part-0.parquet").write_bytes(b"noise")
        (late / "_SUCCESS").touch()
    elif later == "other rows":
        rows = [impression("i1", 1, x_price=9.0, arrived_at=at(3, 11)), impression("i9", 1, arrived_at=at(3, 11))]
        write_day(drop, 3, impressions=rows)
        take_in(drop, 3)
    assert bytes_of(resolved(drop, 2)) == want


def test_a_days_artifact_does_not_depend_on_the_other_days(tmp_path: Path) -> None:
    impressions = [impression("i2", 2, shown_at=at(2, 10), arrived_at=at(2, 11))]
    outcomes = [outcome("i2", arrived_at=at(2, 13))]
    alone = write_day(tmp_path / "alone" / "drop", 2, impressions=impressions, outcomes=outcomes)
    [one] = take_in(alone.parent, 2)
    among = take_in(three_days(tmp_path / "three" / "drop"), 3)[1]
    assert (one.fingerprint, bytes_of(one)) == (among.fingerprint, bytes_of(among))


def test_names_and_order_of_files_change_no_byte(tmp_path: Path) -> None:
    for root, order in (("one", "abc"), ("two", "cab")):
        for name in order:
            write_day(
                tmp_path / root / "drop", 1, impressions=[impression(name, 0 if name == "b" else 1, request_id=name)]
            )
    one, two = (take_in(tmp_path / root / "drop", 1)[0] for root in ("one", "two"))
    assert (one.fingerprint, bytes_of(one)) == (two.fingerprint, bytes_of(two))


def test_fault_06_a_feature_that_changes_its_kind_overnight_blocks_and_both_are_named(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, impressions=[impression()])
    rows = table_of([impression("b", arrived_at=at(2, 11), x_price="1.5")], {"x_price": pa.string()})
    write_day(tmp_path / "drop", 2, impressions=rows)
    message = (
        "day=2026-03-02/impressions: column 'x_price' has a wrong type: got string; wanted number, as in day=2026-03-01"
    )
    with pytest.raises(Blocked, match=re.escape(message)):
        take_in(tmp_path / "drop", 2)
    assert len(take_in(tmp_path / "drop", 1)) == 1


def test_whole_numbers_one_day_and_fractions_the_next_are_one_kind(tmp_path: Path) -> None:
    whole = table_of([impression(x_price=1)], {"x_price": pa.int64()})
    write_day(tmp_path / "drop", 1, impressions=whole)
    write_day(tmp_path / "drop", 2, impressions=[impression("b", 2, x_price=0.5, arrived_at=at(2, 11))])
    log = Log.open(resolved(tmp_path / "drop", 2), store_beside(tmp_path / "drop"))
    assert log.table("impressions").collect()["x_price"].to_list() == [1.0, 0.5]


def test_a_blocked_day_is_not_delivered_and_its_repaired_files_are_taken_in(tmp_path: Path) -> None:
    day = write_day(tmp_path / "drop", 1, impressions=[impression()])
    good = (day / "impressions" / "part-0.parquet").read_bytes()
    (day / "impressions" / "part-0.parquet").write_bytes(good[:100])
    with pytest.raises(Blocked, match=re.escape("part-0.parquet")):
        take_in(tmp_path / "drop", 1)
    (day / "impressions" / "part-0.parquet").write_bytes(good)
    assert len(take_in(tmp_path / "drop", 1)) == 1


def test_another_drop_in_the_same_root_is_refused(tmp_path: Path) -> None:
    take_in(three_days(tmp_path / "drop"), 1)
    with pytest.raises(Refused, match=re.escape("this root belongs to another source")):
        take_in(three_days(tmp_path / "other"), 1)


@step()
def found_no_cutoff(work: Work) -> None:
    """Say that there is no cutoff."""
    work.record = Cannot("the log is too young").as_record()


def test_a_cutoff_that_cannot_be_found_gives_no_days_and_the_log_says_why(tmp_path: Path) -> None:
    store, spec = store_beside(tmp_path / "drop"), spec_of(three_days(tmp_path / "drop"))
    cutoff = found_no_cutoff(store=store, spec=spec)
    assert ingest.run(store=store, spec=spec, cutoff=cutoff) == []
    assert store.open(resolve.run(store=store, spec=spec, cutoff=cutoff, days=[])).cannot == Cannot(
        "the log is too young"
    )


def test_a_cutoff_before_the_first_day_gives_no_log_in_words(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 5, impressions=[impression(arrived_at=at(5, 11))])
    assert resolved(tmp_path / "drop", 4).cannot == Cannot("the log has no day before 2026-03-05T00:00:00Z")


def test_days_of_a_log_after_its_cutoff_are_refused(tmp_path: Path) -> None:
    store, spec = store_beside(tmp_path / "drop"), spec_of(three_days(tmp_path / "drop"))
    days = ingest.run(store=store, spec=spec, cutoff=end_of(3))
    with pytest.raises(Refused, match=re.escape("a day of the log ends after the cutoff: got 2026-03-03")):
        resolve.run(store=store, spec=spec, cutoff=end_of(2), days=days)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1", "SAMEWORLD_CACHE": str(tmp_path / "cache")}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="drops")
    return "drops"


def upload(drop: Path, bucket: str, prefix: str) -> str:
    client = boto3.client("s3")
    for path in drop.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(drop).as_posix()}")
    return f"s3://{bucket}/{prefix}"


def test_a_drop_on_s3_gives_the_fingerprints_of_the_same_drop_in_a_folder(tmp_path: Path, bucket: str) -> None:
    local = take_in(three_days(tmp_path / "drop"), 3)
    uri = upload(tmp_path / "drop", bucket, "feed/main")
    store = Store(str(tmp_path / "other-root"))
    remote = [store.open(one) for one in ingest.run(store=store, spec=spec_of(uri), cutoff=end_of(3))]
    assert [one.fingerprint for one in remote] == [one.fingerprint for one in local]
    assert [bytes_of(one) for one in remote] == [bytes_of(one) for one in local]


def test_a_missing_prefix_and_a_missing_bucket_are_refused(tmp_path: Path, bucket: str) -> None:
    store = Store(str(tmp_path / "root"))
    for uri, message in (
        ("s3://drops/gone", "there is no such drop: got s3://drops/gone"),
        ("s3://no-such-bucket/x", "bucket no-such-bucket"),
    ):
        with pytest.raises(Refused, match=re.escape(message)):
            ingest.run(store=store, spec=spec_of(uri), cutoff=end_of(1))


def test_requests_without_impressions_make_a_log(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, requests=[request()])
    assert resolved(tmp_path / "drop", 1).record["tables"]["requests"]["kept"] == 1
