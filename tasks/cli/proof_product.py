"""The product beside a shop: its real steps on the drop so far, and its bundle in service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.rank import scores
from sameworld.models.scored_rows import judged_rows
from sameworld.sources.closed_loop import CandidateFeatures, WorldParameters
from sameworld.spec import Spec
from sameworld.store.artifacts import Store, artifact_at
from sameworld.store.times import parse_time, time_text
from tasks.cli.proof_arms import Said
from tasks.cli.proof_shop import Shop, standardised
from tasks.cli.proof_worlds import Course
from tasks.flow import perform
from tasks.run import Call, planned

Floats = NDArray[np.float64]
ROUNDS, TRAIN_DAYS = 60, 16.0


@dataclass
class Product:
    """The product beside a shop: it reads the shop's drop and nothing else; ``bundle`` is the one in service.

    course : it is asked for a back-test only at midnights that judge what an earlier ship made
    """

    shop: Shop
    spec: Spec
    store: Store
    course: Course
    bundle: Bundle | None = None

    @property
    def judged_days(self) -> int:
        """The days after a ship whose requests its back-test reads."""
        return self.course.judged_days

    def ship(self) -> None:
        """Make the bundle of all that is known by now, and put it into service."""
        self.bundle = load_bundle(artifact_at(self._upto("calibrate")["calibrate"]))

    def score(self, features: CandidateFeatures) -> Floats:
        """Score a day's candidates, standardised to the spread that the exploring policy's tau is meant for."""
        request = np.repeat(np.arange(features.shape[0]), features.shape[1])
        return standardised(scores(features.frame(), request, self._serving())[0].reshape(features.shape))

    def probability(self, rows: pl.DataFrame) -> Floats:
        """Return each row's probability that the target is observed where the item was shown."""
        found = judged_rows(rows.with_columns(target=self.spec.label.target), self._serving()).probability
        return np.empty(0) if found is None else found

    def backtest(self, metric: str) -> Said | None:
        """Return the back-test of an earlier bundle as of now; None where there is none yet."""
        if len(self.shop.days) not in (*self.course.ships, self.course.days):
            return None
        looked = artifact_at(self._upto("look_back")["look_back"]).record
        about = (parse_time(looked["cutoff"]) - self.shop.midnight(0)).days if "cutoff" in looked else -1
        if about not in self.course.ships:
            return None
        value = artifact_at(self._upto("evaluate")["evaluate"]).record.get("metrics", {}).get(metric, {}).get("value")
        return None if value is None else Said(about, value)

    def _serving(self) -> Bundle:
        if self.bundle is None:
            raise ValueError("nothing was shipped yet")
        return self.bundle

    def _upto(self, wanted: str) -> dict[str, Any]:
        """Run the flow as of now up to a step, without gates and report; return where each step wrote."""
        handles: dict[str, Any] = {}
        for call in planned(time_text(self.shop.now)).only(wanted):
            if call.name.startswith("validate."):
                continue
            given = {
                name: handles[value.key] if isinstance(value, Call) else value for name, value in call.inputs.items()
            }
            handles[call.key] = perform(call.name, store=self.store, spec=self.spec, **given)
        return {name: handle["uri"] for name, handle in handles.items()}


def product_in(folder: Path, parameters: WorldParameters, course: Course, *, target: str) -> Product:
    """Open a shop of these parameters with the product beside it, in a folder."""
    p = parameters
    gains = {"click": p.click_gain} | ({"purchase": p.purchase_gain} if p.purchase_gain else {})
    label = {"gains": gains, "target": target, "window_days": p.window_days}
    spec = Spec.parse(
        {
            "source": {"kind": "drop", "uri": str(folder / "drop")},
            "label": label | ({"segments": ["x_segment"]} if target == "purchase" else {}),
            "train": {"max_rounds": ROUNDS, "learning_rate": 0.1, "days": TRAIN_DAYS},
            "backtest": {"days": course.judged_days, "deploy_lag_hours": 0.0},
            "evaluate": {"replicates": 100, "at": [10]},
            "engine": {"threads": 1},
        }
    )
    return Product(Shop(parameters, folder / "drop"), spec, Store(str(folder / "root")), course)
