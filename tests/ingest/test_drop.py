"""Reading a drop's listing: which days are there, which files are tables, what names a day's content."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path

import pytest
from ingest.tiny_drops import impression, outcome, request, resolved, spec_of, store_beside, write_day
from worlds.dirt import remove_success

from sameworld.records import NotYet, Refused
from sameworld.sources import claim_root, identity, open_source
from sameworld.sources.drop import Drop
from sameworld.spec import SourceSpec
from sameworld.store.artifacts import Store
from sameworld.store.times import day_end, time_text
from tasks import ingest

FIRST = date(2026, 3, 1)


def fingerprint(drop: Path) -> str:
    return Drop(str(drop)).day(FIRST).fingerprint


def test_only_days_with_success_are_there(tmp_path: Path) -> None:
    write_day(tmp_path, 2, impressions=[impression()])
    remove_success(write_day(tmp_path, 1, impressions=[impression()]))
    assert Drop(str(tmp_path)).days() == [date(2026, 3, 2)]


def test_a_day_without_success_is_not_yet_there(tmp_path: Path) -> None:
    remove_success(write_day(tmp_path, 1, impressions=[impression()]))
    with pytest.raises(NotYet, match=re.escape("day 2026-03-01 of the drop is not there yet")):
        Drop(str(tmp_path)).day(FIRST)


def test_a_missing_drop_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("there is no such drop: got " + str(tmp_path / "gone"))):
        Drop(str(tmp_path / "gone"))


def test_no_uri_at_all_is_refused_with_the_setting() -> None:
    with pytest.raises(Refused, match=re.escape("--set source.uri=")):
        open_source(SourceSpec(uri=""))


def test_a_file_uri_is_the_folder_it_names(tmp_path: Path) -> None:
    folder = tmp_path / "a drop"
    write_day(folder, 1, impressions=[impression()])
    assert fingerprint(folder) == Drop(folder.as_uri()).day(FIRST).fingerprint


def test_views_are_tables_of_their_own(tmp_path: Path) -> None:
    write_day(tmp_path, 1, features__stats=[request()], impressions=[impression()])
    assert list(Drop(str(tmp_path)).day(FIRST).files) == ["features.stats", "impressions"]


def test_what_is_no_table_is_listed(tmp_path: Path) -> None:
    day = write_day(tmp_path, 1, impressions=[impression()], impresions=[impression()])
    (day / "impressions" / "notes.txt").touch()
    assert Drop(str(tmp_path)).day(FIRST).ignored == ("impresions", "impressions/notes.txt")


def test_names_and_times_of_files_do_not_change_a_days_fingerprint(tmp_path: Path) -> None:
    for drop, order in (("one", "ab"), ("two", "ba")):
        day = write_day(tmp_path / drop, 1)
        for name in order:
            write_day(tmp_path / drop, 1, impressions=[impression(name)])
        os.utime(next((day / "impressions").iterdir()), (0, 0))
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")


def test_the_same_files_on_another_day_are_another_content(tmp_path: Path) -> None:
    for day in (1, 2):
        write_day(tmp_path, day, impressions=[impression()])
    drop = Drop(str(tmp_path))
    assert drop.day(FIRST).content == drop.day(date(2026, 3, 2)).content
    assert drop.day(FIRST).fingerprint != drop.day(date(2026, 3, 2)).fingerprint


def test_a_remembered_hash_is_not_used_for_changed_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sameworld.sources.hash_memo.SETTLED_SECONDS", -1.0)
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    file = next((write_day(tmp_path / "drop", 1, impressions=[impression()]) / "impressions").iterdir())
    before, stat = fingerprint(tmp_path / "drop"), file.stat()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and mtime are as before
    assert fingerprint(tmp_path / "drop") != before


def test_an_unchanged_file_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sameworld.sources.hash_memo.SETTLED_SECONDS", -1.0)
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    write_day(tmp_path / "drop", 1, impressions=[impression()])
    before = fingerprint(tmp_path / "drop")
    monkeypatch.setattr("sameworld.sources.places.sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert fingerprint(tmp_path / "drop") == before


@pytest.mark.parametrize("link", ["impressions/more.parquet", "impressions", ""])
def test_fault_53_a_symbolic_link_that_leaves_the_drop_is_refused(tmp_path: Path, link: str) -> None:
    outside = write_day(tmp_path / "elsewhere", 1, impressions=[impression()])
    day = tmp_path / "drop" / "day=2026-03-01"
    place = day / link
    place.parent.mkdir(parents=True)
    place.symlink_to({"": outside, "impressions": outside / "impressions"}.get(link, outside / "_SUCCESS"))
    (day / "_SUCCESS").touch()
    with pytest.raises(Refused, match=re.escape("a symbolic link leaves the drop")):
        Drop(str(tmp_path / "drop")).day(FIRST)


def test_a_root_belongs_to_one_source(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_day(tmp_path / name, 1, impressions=[impression()])
    store = store_beside(tmp_path / "one")
    claim_root(store, spec_of(tmp_path / "one").source)
    claim_root(store, spec_of(tmp_path / "one").source)
    with pytest.raises(Refused, match=re.escape("choose another --root")):
        claim_root(store, spec_of(tmp_path / "two").source)


def test_a_relative_path_and_its_absolute_one_are_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drop").mkdir()
    assert identity(SourceSpec(uri="drop")) == identity(SourceSpec(uri=f"{tmp_path}/drop/"))


def test_the_shipped_sample_is_a_drop_that_is_taken_in_without_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    spec = spec_of("", kind="open_bandit", campaign="men")
    drop = open_source(spec.source)
    assert open_source(spec.source).uri == drop.uri
    store = Store(str(tmp_path / "root"))
    days = ingest.run(store=store, spec=spec, cutoff=time_text(day_end(drop.days()[-1])))
    sums = [one for uri in days for one in store.open(uri).record["tables"].values()]
    assert sum(one["rows_in"] for one in sums) == sum(one["kept"] for one in sums) > 0


def test_a_small_world_is_written_once_and_resolves_without_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMEWORLD_CACHE", str(tmp_path / "cache"))
    world = {"days": 2, "requests_per_day": 30, "users": 20, "items": 30}
    drop = open_source(SourceSpec(kind="closed_loop", world=world))
    assert open_source(SourceSpec(kind="closed_loop", world=world)).uri == drop.uri
    tables = resolved(Path(drop.uri), 2).record["tables"]
    assert all(one["kept"] == one["rows_in"] > 0 for one in tables.values())


def test_an_unknown_parameter_of_a_world_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refused, match=re.escape("did you mean 'days'?")):
        open_source(SourceSpec(kind="closed_loop", world={"dayz": 2}))


def test_a_missing_campaign_is_refused() -> None:
    with pytest.raises(Refused, match=re.escape("no campaign was named")):
        open_source(SourceSpec(kind="open_bandit"))


def test_outcomes_alone_make_a_day(tmp_path: Path) -> None:
    write_day(tmp_path / "drop", 1, outcomes=[outcome()])
    assert Drop(str(tmp_path / "drop")).first_day() == FIRST
