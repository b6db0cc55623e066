"""What a run is made of: TOML in, a validated and frozen record with a hash out.

The contract's section 5 lists the keys; ``experiments/baseline.toml`` documents each with its unit and default.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sameworld.mapped_table import MappedTables, keys_beside, with_sql_texts
from sameworld.records import Refused
from sameworld.spec_tree import merge, read_toml, set_key

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Gain = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A frozen part of a spec; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SourceSpec(Section):
    """Where the log comes from; ``tables`` maps files that are no contract's, of a drop only."""

    kind: Literal["drop", "open_bandit", "closed_loop"] = "drop"
    uri: str = ""
    tables: MappedTables = {}
    campaign: str = ""
    max_skew_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    world: dict[str, float | int | str | list[float]] = {}

    @model_validator(mode="after")
    def _maps_a_drop(self) -> SourceSpec:
        if self.tables and self.kind != "drop":
            raise ValueError(f'kind = "drop": tables map its files, and a source of kind {self.kind!r} has its own')
        return self


class LabelSpec(Section):
    """What counts as an outcome, and for how long."""

    window_days: Positive = 7.0
    gains: dict[str, Gain] = {}
    target: str = ""
    segments: list[str] = []
    lag_grid_hours: Positive = 6.0
    min_segment_events: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _target_has_a_gain(self) -> LabelSpec:
        if not self.gains:
            raise ValueError("gains is empty; wanted at least one outcome kind, as in gains = { click = 1.0 }")
        if self.target not in self.gains:
            raise ValueError(f"target {self.target!r} is not among the kinds of gains: {', '.join(sorted(self.gains))}")
        return self


class RepeatsSpec(Section):
    """What becomes of requests that repeat each other, and of users that ask like no person."""

    rule: Literal["weigh", "leave_out", "keep"] = "weigh"
    minutes: Positive = 10.0
    user_requests_a_day: Annotated[int, Field(ge=1)] = 50


class FeaturesSpec(Section):
    """Which columns the models may read."""

    include: list[str] = ["x_*"]
    exclude: list[str] = []
    categories: list[str] = []
    views: dict[str, list[str]] = {}


class ValidateSpec(Section):
    """Thresholds of the gates.

    max_repeated_move : how far the day's share of duplicates and conflicts may lie above its usual before a warning
    """

    min_volume_share: Share = 0.5
    max_volume_share: Annotated[float, Field(ge=1.0)] = 2.0
    like_weekdays: Annotated[int, Field(ge=1)] = 4
    max_quarantined_share: Share = 0.05
    max_null_rate_move: Share = 0.2
    max_repeated_move: Share = 0.1
    min_positives: Annotated[int, Field(ge=1)] = 10


class TrainSpec(Section):
    """How the models are fitted."""

    days: Positive = 60.0
    negative_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    position: Literal["estimated", "none"] = "estimated"
    delay: Literal["corrected", "closed_only"] = "corrected"
    order: Literal["gain", "lambdarank"] = "gain"
    item_history: bool = True
    max_rounds: Annotated[int, Field(ge=1)] = 400
    early_stopping_rounds: Annotated[int, Field(ge=1)] = 30
    learning_rate: Positive = 0.03
    leaves: Annotated[int, Field(ge=2)] = 15
    min_leaf_rows: Annotated[int, Field(ge=1)] = 50
    min_leaf_positives: Annotated[float, Field(ge=0.0)] = 10.0
    holdout_days: Positive = 2.0
    seed: int = 1

    @field_validator("order", mode="before")
    @classmethod
    def _order_heeds_positions(cls, order: Any) -> Any:
        if order == "rank_xendcg":
            raise ValueError("'gain' or 'lambdarank': LightGBM's rank_xendcg leaves positions out without a word")
        return order


class BacktestSpec(Section):
    """How a recipe is judged."""

    days: Annotated[int, Field(ge=1)] = 3
    deploy_lag_hours: Annotated[float, Field(ge=0.0)] = 6.0


class EvaluateSpec(Section):
    """Which metrics, and how precisely.

    precision : half-width of the off-policy value's interval to explore for, relative to the value
    """

    at: list[Annotated[int, Field(ge=1)]] = [5, 10]
    replicates: Annotated[int, Field(ge=100)] = 500
    seed: int = 7
    max_slices: Annotated[int, Field(ge=1)] = 8
    precision: Positive = 0.05


DECIDING = ("mrr", "normalised_entropy", "auc", "ece")
GUARDED = (*DECIDING, "calibration_ratio", "coverage", "exposure_gini")


class DecideSpec(Section):
    """The rules of promotion."""

    metric: str = "ndcg@10"
    margin: Annotated[float, Field(ge=0.0)] = 0.002
    guardrails: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {"calibration_ratio": [0.9, 1.1]}
    drill_calibration: Annotated[list[Gain], Field(min_length=2, max_length=2)] = [0.8, 1.25]
    stage: Literal["champion", "challenger"] = "champion"

    @model_validator(mode="after")
    def _metrics_are_known(self) -> DecideSpec:
        for name, known in [(self.metric, DECIDING), *((name, GUARDED) for name in self.guardrails)]:
            if name not in known and not re.fullmatch(r"ndcg@[1-9]\d*", name):
                raise ValueError(f"{name!r} is no metric to decide by; wanted ndcg@K or one of: {', '.join(known)}")
        if self.drill_calibration[0] > self.drill_calibration[1]:
            raise ValueError(f"drill_calibration is a range; wanted the lower end first, got {self.drill_calibration}")
        return self


class EngineSpec(Section):
    """Where the work runs; never changes an answer."""

    kind: Literal["local", "dask"] = "local"
    scheduler: str = ""
    memory_gb: Positive = 16.0
    threads: Annotated[int, Field(ge=0)] = 0


class Spec(Section):
    """A whole run: ``Spec.parse`` validates, ``digest`` names it."""

    source: SourceSpec = SourceSpec()
    label: LabelSpec
    repeats: RepeatsSpec = RepeatsSpec()
    features: FeaturesSpec = FeaturesSpec()
    checks: ValidateSpec = Field(default=ValidateSpec(), alias="validate")
    train: TrainSpec = TrainSpec()
    backtest: BacktestSpec = BacktestSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    decide: DecideSpec = DecideSpec()
    engine: EngineSpec = EngineSpec()

    @classmethod
    def parse(cls, tree: Mapping[str, Any]) -> Spec:
        """Validate a TOML tree; the first fault is raised as a ``Refused`` with the nearest known key."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise _refusal(error) from None

    def tree(self) -> dict[str, Any]:
        """Return the whole spec as a JSON-ready tree, defaults included."""
        return self.model_dump(mode="json", by_alias=True)

    def part(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return ``{dotted key: value}`` for the named keys; a section's name stands for all of it.

        >>> spec = Spec.parse({"label": {"gains": {"click": 1.0}, "target": "click"}})
        >>> spec.part(["label.target", "train.seed"])
        {'label.target': 'click', 'train.seed': 1}
        """
        tree = self.tree()
        return {key: _lookup(tree, key) for key in sorted(keys)}

    def digest(self) -> str:
        """Return the SHA-256 of all of the spec that can change an answer: everything but the engine."""
        tree = {name: section for name, section in self.tree().items() if name != "engine"}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def load_spec(path: Path, *, changes: Iterable[str] = (), known: Mapping[str, Path] | None = None) -> Spec:
    """Read a spec file, its ``base`` specs below it and ``key.path=value`` changes above it.

    path : the TOML file
    changes : ``--set`` arguments; the value is TOML, a bare word counts as a string
    known : names that ``base`` may use besides files of the same folder
    """
    tree = _read_with_bases(path, known or {}, seen=())
    for change in changes:
        set_key(tree, change)
    return Spec.parse(with_sql_texts(tree, path.parent))


def _read_with_bases(path: Path, known: Mapping[str, Path], seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise Refused(what="a spec's bases go in a circle", got=chain, wanted="a base that ends")
    tree = with_sql_texts(read_toml(path), path.parent)
    base = tree.pop("base", None)
    if base is None:
        return tree
    beside = path.parent / f"{base}.toml"
    below = beside if beside.exists() and beside != path else known.get(str(base))
    if below is None and beside == path:
        chain = f"{path.name} -> {path.name}"
        raise Refused(what="a spec's bases go in a circle", got=chain, wanted="a base that ends")
    if below is None:
        names = sorted({*known, *(p.stem for p in path.parent.glob("*.toml"))})
        raise Refused(what=f"no base spec {base!r}", got=str(path), wanted=_nearest(str(base), names))
    result = _read_with_bases(below, known, (*seen, path))
    merge(result, tree)
    return result


def _lookup(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        value = value[name]
    return value


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        shown = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _known_keys(inner, f"{shown}.")
        else:
            keys.append(shown)
    return keys


def known_keys() -> list[str]:
    """Return every dotted key of a spec."""
    return _known_keys(Spec)


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"{close[0]!r} (the nearest known)" if close else f"one of: {', '.join(names)}"


def _refusal(error: ValidationError) -> Refused:
    faults = error.errors()
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])  # misspelt, then missing
    key = ".".join(str(part) for part in fault["loc"]).removesuffix(".[key]")
    if fault["type"] == "extra_forbidden":
        names = [*known_keys(), *keys_beside(key)]
        sections = sorted({name.split(".")[0] for name in names})
        return Refused(
            what="unknown spec key",
            got=repr(key),
            wanted=_nearest(key, names if "." in key else [*sections, *names]),
            remedy="every key is described in experiments/baseline.toml",
        )
    got = "nothing" if fault["type"] == "missing" else shorten(repr(fault["input"]), 300)
    return Refused(
        what=f"spec key {key or 'spec'!r} cannot be used", got=got, wanted=fault["msg"].removeprefix("Value error, ")
    )
