"""The bundle on disk: round trip, equal bytes, and what is never loaded."""

import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
from models import tiny
from s3_server import a_bucket, moto_server, point_at

from sameworld.models.bundle import ItemStatistics, load_bundle, version_name, write_bundle
from sameworld.models.rank import rank
from sameworld.records import Refused
from sameworld.store.artifacts import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "root"))


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def loaded(store, folder):
    return load_bundle(tiny.publish(store, folder))


def test_a_bundle_survives_its_folder(store, tmp_path):
    found = loaded(store, tiny.write(tmp_path / "b"))
    assert (found.version, found.features, found.start) == ("20260302-00000000", tiny.FEATURES, tiny.texts()[2])
    np.testing.assert_array_equal(found.items.ids, tiny.ITEMS.ids)
    np.testing.assert_array_equal(found.items.rate, tiny.ITEMS.rate)
    assert found.examination.tolist() == [1.0, 0.5, 0.25]


def test_a_loaded_bundle_ranks_a_request_as_its_boosters_do(store, tmp_path):
    request = tiny.candidates(requests=1)
    ranked = rank(request, loaded(store, tiny.write(tmp_path / "b")))
    code = request["x_colour"].replace_strict({"blue": 0, "green": 1, "red": 2}, default=None).to_numpy()
    matrix = np.stack([code.astype(float), request["x_price"].to_numpy()], axis=1)
    ranker, probability, start = tiny.texts()
    np.testing.assert_allclose(ranked["score"], lgb.Booster(model_str=ranker).predict(matrix), atol=1e-6)
    logit = start + lgb.Booster(model_str=probability).predict(matrix, raw_score=True)
    np.testing.assert_allclose(ranked["probability"], tiny.logistic(logit), atol=1e-6)


def test_a_bundle_on_s3_is_the_bundle_of_a_folder(store, tmp_path, monkeypatch):
    local = tiny.publish(store, tiny.write(tmp_path / "b"))
    with moto_server() as address:
        point_at(monkeypatch, address, tmp_path / "cache")
        remote = tiny.publish(Store(f"s3://{a_bucket()}/root"), tmp_path / "b")
        one, other = (rank(tiny.candidates(), load_bundle(artifact)) for artifact in (local, remote))
    assert remote.content_hash == local.content_hash
    assert one.equals(other)


def test_a_bundle_without_lists_has_no_ranker(store, tmp_path):
    folder = tiny.write(tmp_path / "b")
    (folder / "ranker.txt").unlink()
    assert loaded(store, folder).ranker is None


def test_equal_content_gives_equal_bytes_at_any_time(tmp_path, monkeypatch):
    first = tiny.write(tmp_path / "one")
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    second = tiny.write(tmp_path / "two")
    names = sorted(path.name for path in first.iterdir())
    assert [(first / name).read_bytes() for name in names] == [(second / name).read_bytes() for name in names]


def test_other_statistics_give_another_content_hash(tmp_path):
    other = ItemStatistics(tiny.ITEMS.ids, tiny.ITEMS.rate + 1e-9, tiny.ITEMS.prior)
    hashes = set()
    for number, items in enumerate((tiny.ITEMS, other, tiny.ITEMS)):
        folder = tiny.write(tmp_path / str(number))
        ranker, probability, _ = tiny.texts()
        write_bundle(
            folder, ranker=ranker, probability=probability, items=items, history=tiny.HISTORY, about=tiny.about()
        )
        hashes.add(tiny.publish(Store(str(tmp_path / f"root{number}")), folder).content_hash)
    assert len(hashes) == 2


def test_fault_29_a_flipped_byte_is_refused(store, tmp_path):
    artifact = tiny.publish(store, tiny.write(tmp_path / "b"))
    stored = Path(artifact.uri.removeprefix("file://")) / "probability.txt"
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(content)
    with pytest.raises(Refused, match=re.escape("probability.txt")):
        load_bundle(store.open(artifact.uri))


@pytest.mark.parametrize("name", ["probability.txt", "items.npz", "bundle.json"])
def test_fault_53_a_bundles_file_that_is_a_link_out_of_the_root_is_refused(store, tmp_path, name):
    artifact = tiny.publish(store, tiny.write(tmp_path / "b"))
    stored, outside = Path(artifact.uri) / name, tmp_path / "outside"
    stored.rename(outside)
    stored.symlink_to(outside)
    with pytest.raises(Refused, match=re.escape("a symbolic link leads out of the root")):
        load_bundle(store.open(artifact.uri))


@pytest.mark.parametrize("name", ["probability.txt", "ranker.txt", "items.npz", "bundle.json"])
def test_fault_55_a_pickle_in_the_place_of_any_file_is_never_loaded(store, tmp_path, name):
    folder = tiny.write(tmp_path / "b")
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(Refused, match=re.escape(name)):
        loaded(store, folder)
    assert not (tmp_path / "exploded").exists()


def test_fault_55_an_object_array_in_the_statistics_is_never_loaded(store, tmp_path):
    folder, stream = tiny.write(tmp_path / "b"), io.BytesIO()
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    np.savez(stream, ids=bomb, rate=np.ones(1), prior=np.float64(0.1))
    (folder / "items.npz").write_bytes(stream.getvalue())
    with pytest.raises(Refused, match=re.escape("the bundle's items.npz cannot be read")):
        loaded(store, folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["model.pkl", "ranker.pkl", "items.pickle", "calibrator.joblib", "__init__.py"])
def test_fault_55_a_pickle_beside_the_files_is_left_alone(store, tmp_path, name):
    folder = tiny.write(tmp_path / "b")
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert loaded(store, folder).version == "20260302-00000000"
    assert not (tmp_path / "exploded").exists()


def test_fault_55_a_file_that_the_manifest_does_not_name_is_no_part_of_the_bundle(store, tmp_path):
    folder = tiny.write(tmp_path / "b")
    (folder / "ranker.txt").unlink()
    artifact = tiny.publish(store, folder)
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    for name in ("ranker.txt", "model.pkl", "items.npz.pkl"):
        (Path(artifact.uri) / name).write_bytes(bomb)
    found = store.open(artifact.uri)
    assert load_bundle(found).ranker is None
    assert found.content_hash == artifact.content_hash
    assert not (tmp_path / "exploded").exists()


def test_fault_55_a_pickle_renamed_to_npz_or_npy_inside_an_npz_is_never_loaded(store, tmp_path):
    folder = tiny.write(tmp_path / "b")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    with zipfile.ZipFile(folder / "items.npz", "w") as archive:
        for name in ("ids", "rate", "prior", "kinds", "log_ratio", "residual"):
            archive.writestr(f"{name}.npy", bomb)
    with pytest.raises(Refused, match=re.escape("the bundle's items.npz cannot be read")):
        loaded(store, folder)
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_of_these_tests_does_explode_when_it_is_loaded(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


def changed_about(folder, **changes):
    """Put other entries into a bundle's bundle.json, as an editor would; None takes one away."""
    about = json.loads((folder / "bundle.json").read_bytes()) | changes
    kept = {name: value for name, value in about.items() if value is not None}
    (folder / "bundle.json").write_bytes(json.dumps(kept).encode())
    return folder


COLOUR, PRICE = (feature.as_record() for feature in tiny.FEATURES)


@pytest.mark.parametrize(
    ("records", "got"),
    [
        ([COLOUR], "1 features; unknown to the model: none"),
        ([COLOUR, PRICE, PRICE], "3 features; unknown to the model: none"),
        ([PRICE, COLOUR], "2 features; unknown to the model: none"),
        ([COLOUR, PRICE | {"name": "x_prize"}], "2 features; unknown to the model: x_prize"),
        ([COLOUR, PRICE | {"kind": "bool"}], "2 features; unknown to the model: x_price"),
        ([COLOUR | {"levels": ["green", "blue", "red"]}, PRICE], "2 features; unknown to the model: x_colour"),
    ],
    ids=["fewer", "more", "other order", "other name", "other kind", "other levels"],
)
def test_fault_39_a_feature_list_that_does_not_fit_the_model_is_refused(store, tmp_path, records, got):
    folder = changed_about(tiny.write(tmp_path / "b"), features=records)
    words = f"the bundle's feature list does not fit its model: got {got}; wanted the 2 that it was fitted on"
    with pytest.raises(Refused, match=re.escape(words)):
        loaded(store, folder)


@pytest.mark.parametrize("name", ["version", "cutoff", "features", "start", "calibrator", "examination"])
def test_fault_39_a_bundle_that_lacks_an_entry_is_refused_by_its_name(store, tmp_path, name):
    folder = changed_about(tiny.write(tmp_path / "b"), **{name: None})
    with pytest.raises(Refused, match=re.escape(f"the bundle's bundle.json cannot be read: got no {name}")):
        loaded(store, folder)


def test_fault_39_a_feature_without_its_kind_is_refused(store, tmp_path):
    folder = changed_about(tiny.write(tmp_path / "b"), features=[COLOUR, {"name": "x_price", "levels": []}])
    with pytest.raises(Refused, match=re.escape("a feature without 'kind'")):
        loaded(store, folder)


def test_another_steps_artifact_is_no_bundle(store, tmp_path):
    with pytest.raises(Refused, match=re.escape("this is no model bundle: got an artifact of step 'train'")):
        load_bundle(tiny.publish(store, tiny.write(tmp_path / "b"), step="train"))


def test_where_there_is_no_model_the_reason_is_repeated(store, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "record.json").write_bytes(b'{"cannot":"no positives"}')
    with pytest.raises(Refused, match=re.escape("got no positives")):
        loaded(store, tmp_path / "b")


def test_statistics_are_found_by_id_and_an_unknown_item_has_the_prior():
    assert tiny.ITEMS.of(["i02", "i99", "", "i00"]).tolist() == [0.1, 0.15, 0.15, 0.3]
    assert ItemStatistics(np.array([], dtype=np.str_), np.zeros(0), 0.2).of(["a", "b"]).tolist() == [0.2, 0.2]


def test_examination_goes_on_beyond_its_last_known_position():
    assert tiny.bundle().examination_at(np.array([1, 2, 3, 4, 50])).tolist() == [1.0, 0.5, 0.25, 0.25, 0.25]


def test_a_version_is_named_by_its_day_and_its_content():
    names = {version_name("2026-03-02T00:00:00Z", text) for text in ("a", "b", "a")}
    assert len(names) == 2
    assert all(re.fullmatch(r"20260302-[0-9a-f]{8}", name) for name in names)


def test_ranking_reads_the_features_that_the_bundle_lists_whatever_else_a_frame_has(store, tmp_path):
    found, frame = loaded(store, tiny.write(tmp_path / "b")), tiny.candidates()
    more = frame.with_columns(x_new=pl.lit("surprise")).select(reversed([*frame.columns, "x_new"]))
    assert rank(more, found)["score"].equals(rank(frame, found)["score"])
