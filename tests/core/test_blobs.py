import errno
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from typing import Any

import boto3
import pytest
from s3_server import SECRET, a_bucket, answering, fill_bucket, moto_server, point_at

from sameworld.records import NotYet, Refused, SameworldError
from sameworld.store import s3
from sameworld.store.blobs import Blobs, FolderBlobs, S3Blobs, open_blobs

HASH = sha256(b"one").hexdigest()
UNSAFE = ["../x", "a/../../x", "/etc/x", "a\\b", "a/%2e%2e/x", "a#b", "a?b", "a\0b", "a\nb", "a//b", "a/./b", "a/", "."]


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    if request.param == "folder":
        return open_blobs(str(tmp_path / "root"))
    point_at(monkeypatch, request.getfixturevalue("moto"), tmp_path / "cache")
    return open_blobs(f"s3://{a_bucket()}/some/prefix")


def on_s3(monkeypatch: pytest.MonkeyPatch, address: str, tmp_path: Path, bucket: str = "logs") -> S3Blobs:
    point_at(monkeypatch, address, tmp_path / "cache")
    monkeypatch.setattr(s3, "CONFLICT_PAUSES", (0.0,) * 4)
    return S3Blobs(f"s3://{bucket}")


# --- both kinds of root


def test_the_first_put_stands_and_the_second_is_told_so(blobs: Blobs) -> None:
    assert blobs.put_if_absent("a/b", b"one")
    assert not blobs.put_if_absent("a/b", b"two")
    assert blobs.get("a/b") == b"one"


def test_a_file_is_put_as_its_bytes_are_and_stays_where_it_was(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"one" * 100_000)
    assert blobs.put_if_absent("a/b", source)
    assert blobs.get("a/b") == source.read_bytes()


def test_empty_bytes_are_bytes(blobs: Blobs) -> None:
    assert blobs.put_if_absent("a", b"")
    assert not blobs.put_if_absent("a", b"x")
    assert blobs.get("a") == b""


def test_what_may_be_overwritten_is(blobs: Blobs) -> None:
    blobs.put("runs/a", b"one")
    blobs.put("runs/a", b"two")
    assert blobs.get("runs/a") == b"two"


def test_what_is_not_there_is_none(blobs: Blobs) -> None:
    blobs.put_if_absent("a/b", b"one")
    assert [blobs.get(key) for key in ("c", "a", "a/b/c", "a/b.x")] == [None] * 4


def test_a_listing_has_the_keys_below_a_prefix_only_and_sorted(blobs: Blobs) -> None:
    for key in ("log/b", "log/a/2", "log/a/10", "logs/x", "lo", "other"):
        blobs.put_if_absent(key, b"x")
    assert blobs.keys("log") == ["log/a/10", "log/a/2", "log/b"]
    assert blobs.keys("nothing") == []


def test_fault_51_a_listing_of_more_than_a_thousand_keys_is_whole(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, moto, tmp_path)
    bucket, wanted = a_bucket(), [f"many/{number:05d}" for number in range(2_005)]
    fill_bucket(bucket, wanted)
    assert open_blobs(f"s3://{bucket}").keys("many") == wanted


@pytest.mark.parametrize("key", UNSAFE)
def test_fault_53_a_key_that_leaves_its_root_is_refused_everywhere(blobs: Blobs, key: str) -> None:
    calls: list[Any] = [blobs.get, blobs.keys, lambda k: blobs.put(k, b""), lambda k: blobs.put_if_absent(k, b"")]
    for call in [*calls, lambda k: blobs.local(k, HASH)]:
        with pytest.raises(Refused, match=re.escape(f"a key leaves its root: got {key!r}")):
            call(key)


def test_a_local_file_is_the_one_that_was_named(blobs: Blobs) -> None:
    blobs.put_if_absent("a/b", b"one")
    assert blobs.local("a/b", HASH).read_bytes() == b"one"
    assert blobs.local("a/b", HASH).read_bytes() == b"one"


def test_fault_29_a_local_file_with_other_bytes_is_refused_by_its_key(blobs: Blobs) -> None:
    blobs.put_if_absent("a/b", b"eno")
    with pytest.raises(Refused, match=re.escape("a/b was changed after it was written: got hash")) as caught:
        blobs.local("a/b", HASH)
    assert caught.value.remedy == "delete the artifact's folder and run again: it is made anew"


def test_a_local_file_that_is_gone_is_refused_by_its_key(blobs: Blobs) -> None:
    with pytest.raises(Refused, match=re.escape("a file of an artifact is gone: got a/b")):
        blobs.local("a/b", HASH)


@pytest.mark.parametrize("rounds", [30])
def test_sixteen_writers_of_a_key_have_one_winner(blobs: Blobs, rounds: int) -> None:
    rounds = rounds * 10 if isinstance(blobs, FolderBlobs) else 2  # moto is no proof of atomicity
    blobs.put_if_absent("first", b"")
    with ThreadPoolExecutor(16) as pool:
        for number in range(rounds):
            start = Barrier(16)
            won = list(pool.map(lambda me, n=number, b=start: (b.wait(), raced(blobs, n, me))[1], range(16)))
            assert sum(won) == 1
            assert blobs.get(f"race/{number}") == str(won.index(True)).encode()


def raced(blobs: Blobs, number: int, me: int) -> bool:
    return blobs.put_if_absent(f"race/{number}", str(me).encode())


# --- which root is meant


def test_a_root_may_be_a_path_or_a_file_uri(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    assert open_blobs(f"file://{tmp_path}/with%20space").root == open_blobs(str(folder)).root == str(folder)


@pytest.mark.parametrize("root", ["gs://bucket/x", "http://host/x", ""])
def test_another_kind_of_root_is_refused(root: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"unknown kind of root: got {root!r}")):
        open_blobs(root)


@pytest.mark.parametrize("root", ["s3://", "s3:///x", "s3://bucket/x?y", "s3://bucket/x#y", "s3://me:key@bucket/x"])
def test_an_s3_root_that_names_no_bucket_and_prefix_is_refused_without_its_secrets(root: str) -> None:
    with pytest.raises(Refused, match=re.escape("an S3 root cannot be read")) as caught:
        open_blobs(root)
    assert "key@" not in str(caught.value)


def test_an_s3_prefix_stays_below_its_bucket() -> None:
    with pytest.raises(Refused, match=re.escape("a key leaves its root: got 'a/../b'")):
        open_blobs("s3://bucket/a/../b")


# --- a folder's own faults


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "root")
    blobs.put("a", b"")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match=re.escape("a symbolic link leads out of the root: got b")):
        blobs.get("b")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    FolderBlobs(tmp_path / "root").put_if_absent("a/b", b"one")
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"one"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["os.link", "pathlib.Path.write_bytes", "pathlib.Path.mkdir"])
def test_fault_27_a_disk_that_cannot_be_written_is_refused_and_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(call, lambda *_, **__: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
        with pytest.raises(Refused, match=re.escape(f"the root cannot be written: got {os.strerror(number)} (b)")):
            FolderBlobs(tmp_path).put_if_absent("a/b", b"one")
    assert FolderBlobs(tmp_path).keys("a") == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_fault_27_a_file_that_cannot_be_copied_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"one")

    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "another disk")))
    monkeypatch.setattr("shutil.copyfile", half)
    with pytest.raises(Refused, match=re.escape("the root cannot be written: got No space left on device (b)")):
        FolderBlobs(tmp_path / "root").put_if_absent("b", tmp_path / "source")
    assert not list((tmp_path / "root").iterdir())


def test_fault_27_a_root_below_a_file_is_refused_in_both_directions(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    blobs = FolderBlobs(tmp_path / "file")
    for put in (blobs.put, blobs.put_if_absent):
        with pytest.raises(Refused, match=re.escape("the root cannot be written: got")):
            put("a/b", b"one")
    assert blobs.get("a/b") is None


def test_fault_27_bytes_that_cannot_be_read_are_refused_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put_if_absent("a", b"one")
    for call in ("read_bytes", "open"):
        monkeypatch.setattr(Path, call, lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    for read in (blobs.get, lambda key: blobs.local(key, HASH)):
        with pytest.raises(Refused, match=re.escape("the root cannot be read: got Input/output error (a)")):
            read("a")


def test_files_in_the_making_are_no_keys(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put_if_absent("a/b", b"one")
    (tmp_path / "a" / ".aside-0123").write_bytes(b"half")
    assert blobs.keys("a") == ["a/b"]


# --- S3's own faults


def test_a_bucket_without_prefix_has_the_same_keys(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_at(monkeypatch, moto, tmp_path)
    blobs = open_blobs(f"s3://{a_bucket()}/")
    blobs.put_if_absent("log/a", b"one")
    assert (blobs.keys("log"), blobs.get("log/a")) == (["log/a"], b"one")


def test_a_copy_that_was_damaged_here_is_fetched_again(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, moto, tmp_path)
    blobs = open_blobs(f"s3://{a_bucket()}")
    blobs.put_if_absent("a", b"one")
    blobs.local("a", HASH).write_bytes(b"eno")
    assert blobs.local("a", HASH).read_bytes() == b"one"


def test_fault_27_a_cache_that_cannot_be_written_is_refused_by_its_folder(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    point_at(monkeypatch, moto, tmp_path / "file" / "cache")
    blobs = open_blobs(f"s3://{a_bucket()}")
    blobs.put_if_absent("a", b"one")
    with pytest.raises(Refused, match=re.escape(f"the local cache cannot be used: got Not a directory ({tmp_path}")):
        blobs.local("a", HASH)


def without_secrets(error: SameworldError) -> bool:
    seen: list[BaseException] = [error]
    while below := seen[-1].__cause__ or (not seen[-1].__suppress_context__ and seen[-1].__context__):
        seen.append(below)
    return not any(word in f"{one} {one.__dict__}" for one in seen for word in (SECRET, "AKIAPLANTED"))


def every_call(blobs: Blobs) -> list[Any]:
    return [
        lambda: blobs.get("a"),
        lambda: blobs.put("a", b""),
        lambda: blobs.put_if_absent("a", b""),
        lambda: blobs.keys("a"),
        lambda: blobs.local("a", HASH),
    ]


def test_a_bucket_that_is_not_there_is_refused_by_name(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for call in every_call(on_s3(monkeypatch, moto, tmp_path, "nobodys-bucket")):
        with pytest.raises(Refused, match=re.escape("bucket nobodys-bucket refused the request: got NoSuchBucket")):
            call()


def test_fault_49_absent_credentials_are_refused_by_the_buckets_name(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    point_at(monkeypatch, moto, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.DEFAULT_SESSION = None
    with pytest.raises(Refused, match=re.escape("no valid credentials for bucket logs: got NoCredentialsError")):
        S3Blobs("s3://logs").get("a")


@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (403, "AccessDenied"), (501, "NotImplemented")])
def test_fault_49_a_refusal_is_final_and_shows_no_key(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(lambda *_: (status, code)) as address:
        for call in every_call(on_s3(monkeypatch, address, tmp_path)):
            with pytest.raises(Refused, match=re.escape(f"bucket logs refused the request: got {code}")) as caught:
                call()
            assert without_secrets(caught.value)


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout")])
def test_fault_48_a_server_in_trouble_is_asked_five_times_and_then_later(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    with answering(lambda method, _: (asked.append(method), (status, code))[1]) as address:
        for call in every_call(on_s3(monkeypatch, address, tmp_path)):
            asked.clear()
            with pytest.raises(NotYet, match=re.escape(f"bucket logs does not answer: got {code}")):
                call()
            assert len(asked) == 5


def test_fault_48_a_server_that_is_not_there_may_be_there_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(lambda *_: (200, "")) as address:
        blobs = on_s3(monkeypatch, address, tmp_path)
    for call in every_call(blobs):
        with pytest.raises(NotYet, match=re.escape("bucket logs cannot be reached")) as caught:
            call()
        assert without_secrets(caught.value)


def test_a_server_that_recovers_within_the_tries_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = [(500, "InternalError"), (503, "SlowDown"), (200, "")]
    with answering(lambda *_: answers.pop(0)) as address:
        on_s3(monkeypatch, address, tmp_path).put("a", b"")
    assert answers == []


@pytest.mark.parametrize("address", ["nonsense", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("no S3 client: got an endpoint that is no URL")):
        on_s3(monkeypatch, address, tmp_path)


def test_a_name_that_no_bucket_can_have_is_refused(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("bucket no_bucket! cannot be asked: got ParamValidationError")):
        on_s3(monkeypatch, moto, tmp_path, "no_bucket!").get("a")


def test_fault_50_a_server_that_ignores_the_condition_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    with answering(lambda method, path: (asked.append(f"{method} {path}"), (200, ""))[1]) as address:
        blobs = on_s3(monkeypatch, address, tmp_path)
        for _ in range(2):
            with pytest.raises(Refused, match=re.escape("this S3 server ignores If-None-Match: got two writers")):
                blobs.put_if_absent("a", b"one")
    assert set(asked) == {"PUT /logs/probe"}


def test_the_probe_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def careful(_: str, path: str) -> tuple[int, str]:
        asked.append(path)
        return (412, "PreconditionFailed") if asked.count(path) > 1 else (200, "")

    with answering(careful) as address:
        blobs = on_s3(monkeypatch, address, tmp_path)
        assert [blobs.put_if_absent(key, b"") for key in ("a", "b", "a")] == [True, True, False]
    assert asked.count("/logs/probe") == 2


def a_conflict(then: list[tuple[int, str]]) -> Any:
    def answer(_: str, path: str) -> tuple[int, str]:
        if path.endswith("/probe"):
            return 412, "PreconditionFailed"
        return then.pop(0) if then else (409, "ConditionalRequestConflict")

    return answer


@pytest.mark.parametrize(("last", "won"), [((200, ""), True), ((412, "PreconditionFailed"), False)])
def test_fault_50_two_writers_under_way_settle_by_asking_again(
    last: tuple[int, str], won: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(a_conflict([(409, "ConditionalRequestConflict"), last])) as address:
        assert on_s3(monkeypatch, address, tmp_path).put_if_absent("a", b"") is won


def test_writers_that_never_settle_are_to_come_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        answering(a_conflict([])) as address,
        pytest.raises(NotYet, match=re.escape("bucket logs does not settle: got another writer at a. try again")),
    ):
        on_s3(monkeypatch, address, tmp_path).put_if_absent("a", b"")
