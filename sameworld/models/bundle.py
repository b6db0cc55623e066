"""The bundle: one directory of text, JSON and npz that holds all that ranking needs; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from sameworld.maths.calibration import PlattCalibrator, StackCalibrator, calibrator_from_record
from sameworld.models.features import Feature
from sameworld.models.item_history import ItemHistory
from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, canonical, fingerprint_of

RANKER, PROBABILITY, ABOUT, ITEMS = "ranker.txt", "probability.txt", "bundle.json", "items.npz"
STEP = "calibrate"
NEEDED = ("version", "cutoff", "features", "start", "calibrator", "examination")
PRIOR_IMPRESSIONS = 20.0  # how many average impressions an item's rate is shrunk by


@dataclass(frozen=True)
class ItemStatistics:
    """What the log knew about each item: ids sorted (items,), mean gain an impression, shrunk (items,), its prior."""

    ids: NDArray[np.str_]
    rate: NDArray[np.float64]
    prior: float

    def of(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """Return the rate by id; an unknown item has the prior."""
        wanted = np.asarray(ids, dtype=np.str_)
        if not len(self.ids):
            return np.full(len(wanted), self.prior)
        place = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[place] == wanted, self.rate[place], self.prior)


def item_statistics(
    items: NDArray[np.str_], item: NDArray[np.int32], *, gain: NDArray[np.float64], exposure: NDArray[np.float64]
) -> ItemStatistics:
    """Return the gain an exposed impression by item, shrunk to the mean: what "most popular" knows.

    items : sorted ids; item : (rows,) places among them
    """
    # Added up in the order of the rows: a parallel group_by adds in any order, and the last bits of a sum show it.
    prior = float(gain.sum()) / max(float(exposure.sum()), 1e-9)
    gains, exposures = (np.bincount(item, weights=one, minlength=len(items)) for one in (gain, exposure))
    return ItemStatistics(items, (gains + prior * PRIOR_IMPRESSIONS) / (exposures + PRIOR_IMPRESSIONS), prior)


@dataclass(frozen=True)
class Bundle:
    """A loaded model. ``ranker`` is None where the log had no lists: the probability then orders as well."""

    version: str
    cutoff: str
    features: tuple[Feature, ...]
    ranker: lgb.Booster | None
    probability: lgb.Booster
    start: float
    calibrator: PlattCalibrator | StackCalibrator
    examination: NDArray[np.float64]
    items: ItemStatistics
    history: ItemHistory
    about: Mapping[str, Any]
    content_hash: str = ""
    uri: str = ""

    def examination_at(self, position: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return theta by position, from 1; beyond the last known position its value goes on."""
        return np.asarray(self.examination[np.clip(position, 1, len(self.examination)) - 1], np.float64)


def write_bundle(
    folder: Path, *, ranker: str | None, probability: str, items: ItemStatistics, history: ItemHistory, about: Any
) -> None:
    """Write a bundle's files into a folder; equal content gives equal bytes (numpy dates every npz entry 1980).

    The models' texts name each feature by a hash of its name, kind and levels: a list that was changed is noticed.
    """
    features = [Feature.from_record(record) for record in about["features"]]
    if ranker is not None:
        (folder / RANKER).write_text(_named(ranker, features), encoding="utf-8")
    (folder / PROBABILITY).write_text(_named(probability, features), encoding="utf-8")
    (folder / ABOUT).write_bytes(canonical(about))
    with (folder / ITEMS).open("wb") as stream:
        np.savez(
            stream, ids=items.ids, rate=items.rate, prior=np.float64(items.prior),
            kinds=np.asarray(history.kinds, np.str_), log_ratio=history.log_ratio, residual=history.residual,
        )  # fmt: skip


def load_bundle(artifact: Artifact) -> Bundle:
    """Load a bundle; hashes are checked, and that the boosters have the features that the bundle lists."""
    if artifact.step != STEP or artifact.cannot is not None:
        why = artifact.cannot.reason if artifact.cannot else f"an artifact of step {artifact.step!r}"
        raise Refused(what="this is no model bundle", got=why, wanted="the model.bundle of a report")
    about = _about(artifact.path(ABOUT))
    ranker = _booster(artifact.path(RANKER)) if RANKER in artifact.files else None
    probability = _booster(artifact.path(PROBABILITY))
    features = _features(about, [probability, *([ranker] if ranker else [])])
    statistics, history = _items(artifact.path(ITEMS))
    return Bundle(
        version=about["version"],
        cutoff=about["cutoff"],
        features=features,
        ranker=ranker,
        probability=probability,
        start=float(about["start"]),
        calibrator=calibrator_from_record(about["calibrator"]),
        examination=np.asarray(about["examination"], np.float64),
        items=statistics,
        history=history,
        about=about,
        content_hash=artifact.content_hash,
        uri=artifact.uri,
    )


def _features(about: Mapping[str, Any], boosters: Sequence[lgb.Booster]) -> tuple[Feature, ...]:
    """Return the bundle's features; refused where they are not those that the boosters were fitted on, in order."""
    try:
        features = tuple(Feature.from_record(record) for record in about["features"])
    except (KeyError, TypeError) as error:
        raise _unreadable(ABOUT, f"a feature without {error}", "features, each with name, kind and levels") from None
    named, unnamed = [_feature_name(one) for one in features], [f"Column_{place}" for place in range(len(features))]
    for booster in boosters:
        known = booster.feature_name()
        if known not in (named, unnamed):  # bundles of before 2026-11-24 have no names in their texts
            strange = [one.name for one, name in zip(features, named, strict=True) if name not in known]
            raise Refused(
                what="the bundle's feature list does not fit its model",
                got=f"{len(features)} features; unknown to the model: {', '.join(strange[:5]) or 'none'}",
                wanted=f"the {len(known)} that it was fitted on, in their order",
                remedy="make the bundle anew by running its day again",
            )
    return features


def _named(text: str, features: Sequence[Feature]) -> str:
    """Return a model's text with the features' names in it."""
    names = " ".join(_feature_name(feature) for feature in features)
    return re.sub(r"^feature_names=.*$", f"feature_names={names}", text, count=1, flags=re.MULTILINE)


def _feature_name(feature: Feature) -> str:
    """Return a name without the signs that LightGBM refuses; levels are part of it, since a code is their place."""
    return f"f_{fingerprint_of(feature.as_record())[:16]}"


def version_name(cutoff: str, text: str) -> str:
    """Return a version's name: its cutoff's day and eight digits of what the models are.

    >>> version_name("2026-03-02T00:00:00Z", "trees")
    '20260302-29d80730'
    """
    return f"{cutoff[:10].replace('-', '')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _about(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise _unreadable(path.name, f"{error}", "JSON") from None
    lacks = [name for name in NEEDED if not isinstance(about, dict) or name not in about]
    if lacks:
        raise _unreadable(path.name, f"no {', '.join(lacks)}", f"a JSON object with {', '.join(NEEDED)}")
    return about


def _booster(path: Path) -> lgb.Booster:
    """Load a model from text; what does not begin as LightGBM's text is not handed to LightGBM at all."""
    content = path.read_bytes()
    try:
        if not content.startswith(b"tree\n"):
            raise ValueError("other content")
        return lgb.Booster(model_str=content.decode("utf-8"))
    except (ValueError, lgb.basic.LightGBMError) as error:
        raise _unreadable(path.name, f"{error}", "LightGBM's text") from None


def _items(path: Path) -> tuple[ItemStatistics, ItemHistory]:
    """Load the statistics; object arrays, which would be unpickled, are refused."""
    try:
        with np.load(path, allow_pickle=False) as items:
            kinds = tuple(str(kind) for kind in items["kinds"])
            ratios = items["log_ratio"].reshape(len(kinds), len(items["ids"]))
            history = ItemHistory(items["ids"], kinds, ratios, items["residual"])
            return ItemStatistics(items["ids"], items["rate"], float(items["prior"])), history
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(
            path.name, f"{error}", "an npz of ids, rate, prior, kinds, log_ratio and residual, without objects"
        ) from None


def _unreadable(name: str, got: str, wanted: str) -> Refused:
    remedy = "make the bundle anew by running its day again"
    return Refused(what=f"the bundle's {name} cannot be read", got=got, wanted=wanted, remedy=remedy)
