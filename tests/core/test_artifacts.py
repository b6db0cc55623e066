import getpass
import re
import socket
from pathlib import Path

import pytest
from core.core_builders import (
    CUTOFF,
    a_record,
    a_spec,
    a_step,
    everything_below,
    two_tables,
    write_two_tables,
)

from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, Store, artifact_at, canonical, fingerprint_of, read_record

REMEDY = "delete the artifact's folder and run again: it is made anew"


def folder_of(made: Artifact) -> Path:
    return Path(made.uri)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


# --- bytes that changed


def test_fault_29_a_flipped_byte_anywhere_in_a_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    for name in made.files:
        path = folder_of(made) / name
        content = path.read_bytes()
        for place in range(0, len(content), 7):
            path.write_bytes(flipped(content, place))
            with pytest.raises(Refused, match=re.escape(f"{name} was changed after it was written")) as caught:
                Store(str(tmp_path)).open(made.uri).verify()
            assert caught.value.remedy == REMEDY
        path.write_bytes(content)


def test_fault_29_a_flipped_byte_anywhere_in_the_manifest_is_refused_with_the_remedy(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    path = folder_of(made) / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(flipped(content, place))
        with pytest.raises(Refused, match=re.escape("a manifest was changed after it was written")) as caught:
            Store(str(tmp_path)).open(made.uri)
        assert (caught.value.got, caught.value.remedy) == (f"artifacts/measure/{made.fingerprint}", REMEDY)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'"x"', b"\xff", b'{"files": 3}'])
def test_fault_29_a_manifest_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    made = two_tables(tmp_path)
    (folder_of(made) / "manifest.json").write_bytes(content)
    with pytest.raises(Refused, match=re.escape("a manifest was changed after it was written")):
        Store(str(tmp_path)).find("measure", made.fingerprint)


def test_fault_29_the_manifest_of_another_artifact_is_refused(tmp_path: Path) -> None:
    made, other = two_tables(tmp_path), two_tables(tmp_path, cutoff=CUTOFF)
    (folder_of(made) / "manifest.json").write_bytes((folder_of(other) / "manifest.json").read_bytes())
    with pytest.raises(Refused, match=re.escape("a manifest was changed after it was written")):
        Store(str(tmp_path)).open(made.uri)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""])
def test_a_file_that_is_shorter_or_longer_is_refused(tmp_path: Path, change: object) -> None:
    made = two_tables(tmp_path)
    path = folder_of(made) / "a.parquet"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Refused, match=re.escape("a.parquet was changed after it was written")):
        made.scan("a")


def test_a_file_that_is_gone_is_refused_by_its_key(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    (folder_of(made) / "a.parquet").unlink()
    key = f"artifacts/measure/{made.fingerprint}/a.parquet"
    with pytest.raises(Refused, match=re.escape(f"a file of an artifact is gone: got {key}")):
        made.verify()


def test_the_remedy_heals(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    for path in folder_of(made).iterdir():
        path.write_bytes(b"damaged")
    for path in folder_of(made).iterdir():
        path.unlink()
    assert two_tables(tmp_path).verify().content_hash == made.content_hash


# --- what an artifact holds


def test_only_the_manifest_knows_when_and_where_a_run_was(tmp_path: Path) -> None:
    here, there = (two_tables(tmp_path / name, cutoff=CUTOFF) for name in ("here", "over_there"))
    files = [everything_below(folder_of(one)) for one in (here, there)]
    for one in files:
        del one["manifest.json"]
    assert files[0] == files[1]
    assert set(files[0]) == {"a.parquet", "b.parquet", "record.json"}
    assert here.fingerprint == there.fingerprint


def test_no_file_of_an_artifact_names_its_root_its_host_or_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "user-of-this-test")
    monkeypatch.setenv("LOGNAME", "user-of-this-test")
    everything = b"".join(everything_below(folder_of(two_tables(tmp_path, cutoff=CUTOFF))).values())
    for word in (str(tmp_path), socket.gethostname(), getpass.getuser()):
        assert word.encode() not in everything


def test_a_manifest_says_what_went_in_and_what_came_out(tmp_path: Path) -> None:
    manifest = two_tables(tmp_path, cutoff=CUTOFF).manifest
    made_from = {name: manifest[name] for name in ("step", "body", "code", "libraries", "spec", "cutoff", "inputs")}
    assert fingerprint_of(made_from) == manifest["fingerprint"]
    assert manifest["files"]["a.parquet"]["rows"] == 100
    assert manifest["files"]["b.parquet"]["schema"] == {"s": "String"}
    assert manifest["files"]["record.json"]["bytes"] == len(b'{"answer":42}')


def test_a_file_that_an_artifact_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape("artifact measure has no file 'c.parquet'")) as caught:
        two_tables(tmp_path).scan("c")
    assert caught.value.wanted == "a.parquet, b.parquet, record.json"


def test_only_a_record_of_nothing_but_a_reason_says_cannot(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    uris = [a_record(store, "label", record) for record in ({"cannot": "no"}, {"cannot": "no", "rows": 1}, {})]
    assert [store.open(uri).cannot is None for uri in uris] == [False, True, True]


def test_a_published_artifact_is_not_published_again(tmp_path: Path) -> None:
    made = two_tables(tmp_path / "root")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "record.json").write_bytes(b"{}")
    store = Store(str(tmp_path / "root"))
    again = store.publish("measure", made.fingerprint, tmp_path / "other", made_from={}, measured={})
    assert again.record == {"answer": 42}


def test_the_hash_over_the_content_is_over_names_and_bytes_only(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one, same, other = (store.open(a_record(store, step, {"n": n})) for step, n in (("x", 1), ("y", 1), ("x", 2)))
    assert one.content_hash == same.content_hash != other.content_hash


# --- which URI is meant


def spoilt(uri: str, root: str) -> list[object]:
    tail = uri.removeprefix(root)
    return [
        f"/elsewhere{tail}",
        f"{root}/..{tail}",
        f"{root}/../{Path(root).name}{tail}",
        f"{root}/x{tail}",
        f"{root}/{tail}",
        tail[1:],
        f"file://{uri}",
        f"{uri}/",
        f"{uri}\n",
        f" {uri}",
        f"{uri}/record.json",
        f"{uri}#x",
        f"{uri}?x",
        uri[:-1],
        uri.upper(),
        uri.replace("/measure/", "/../measure/"),
        uri.replace("/measure/", "/%2e%2e/"),
        uri.replace("/measure/", "/measure\\"),
        uri.replace("/artifacts/", "/runs/"),
        "",
        None,
        7,
        {"uri": uri},
    ]


def test_fault_47_a_uri_that_was_patched_by_hand_is_refused_with_the_shape_that_is_wanted(tmp_path: Path) -> None:
    store, made = Store(str(tmp_path)), two_tables(tmp_path)
    for uri in spoilt(made.uri, store.root):
        with pytest.raises(Refused, match=re.escape("not a URI of an artifact of this root: got")) as caught:
            store.open(uri, step="measure")  # type: ignore[arg-type]
        assert caught.value.wanted == f"{store.root}/artifacts/measure/<fingerprint>"


def test_fault_47_a_uri_of_another_step_is_refused(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    with pytest.raises(Refused, match=re.escape("not a URI of an artifact of this root")):
        Store(str(tmp_path)).open(made.uri, step="label")
    with pytest.raises(Refused, match=re.escape("not a URI of an artifact of this root")):
        artifact_at(made.uri, step="label")


def test_a_uri_of_what_was_never_made_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(Refused, match=re.escape("no such artifact: got")):
        store.open(f"{store.root}/artifacts/label/{'0' * 64}")


def test_an_artifact_can_be_opened_whichever_root_it_lies_below(tmp_path: Path) -> None:
    made = two_tables(tmp_path)
    assert artifact_at(made.uri).record == artifact_at(f"file://{made.uri}", step="measure").record == {"answer": 42}
    for uri in ("x", "", None, f"{made.uri}\n"):
        with pytest.raises(Refused, match=re.escape(f"not a URI of an artifact: got {uri!r}")):
            artifact_at(uri)  # type: ignore[arg-type]


def test_a_root_is_the_same_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = a_step(write_two_tables)(store=Store("root"), spec=a_spec())
    assert Store(str(tmp_path / "root")).open(uri).uri == uri


# --- records and their one form


def test_a_tree_has_one_form_whatever_the_order_of_its_keys() -> None:
    assert canonical({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    assert fingerprint_of({"a": [1, 2]}) != fingerprint_of({"a": [2, 1]})


def test_what_is_no_number_has_no_form() -> None:
    with pytest.raises(ValueError, match=re.escape("Out of range float values are not JSON compliant")):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"7"])
def test_a_damaged_record_is_refused_by_its_key(tmp_path: Path, content: bytes) -> None:
    store = Store(str(tmp_path))
    store.blobs.put("log/a.json", content)
    with pytest.raises(Refused, match=re.escape(f"changed after it was written: got {store.root}/log/a.json")):
        read_record(store, "log/a.json", lambda record: record["day"])
    assert read_record(store, "log/b.json", dict) is None
