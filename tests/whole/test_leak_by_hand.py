"""The leak meter on hand-made logs: against a plain reading of its definition, and where it must be exactly 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.core_builders import at
from whole.leak_logs import DAYS, Given, drawn, measured, reckoned

NOTHING = {"value": 0.0, "low": 0.0, "high": 0.0}
NE = "normalised_entropy"


def moved(found: dict[str, Any]) -> dict[str, Any]:
    return {name: one["inflation"] for name, one in found["by_source"].items()}


@pytest.mark.parametrize("seed", range(3))
def test_every_read_is_what_a_plain_reading_of_the_definition_gives(tmp_path: Path, seed: int) -> None:
    given = drawn(seed)
    found = measured(tmp_path, given)
    honest, whole = reckoned(given), reckoned(given, outcomes="let in", stats="let in")
    for name, one in found["metrics"].items():
        assert one["honest"] == pytest.approx(honest[name], rel=1e-6)
        assert one["value"] == pytest.approx(whole[name], rel=1e-6)
        assert one["inflation"]["value"] == pytest.approx(whole[name] - honest[name], rel=1e-4)
    alone = {"outcomes": reckoned(given, outcomes="let in"), "stats": reckoned(given, stats="let in")}
    assert {name: one["value"] for name, one in found["by_source"].items()} == {
        name: pytest.approx(one[NE], rel=1e-6) for name, one in alone.items()
    }
    assert found["snapshot"]["stats"]["value"] == pytest.approx(reckoned(given, stats="today")[NE], rel=1e-6)
    assert len({honest[NE], whole[NE], alone["outcomes"][NE], alone["stats"][NE]}) == 4


@pytest.mark.parametrize("seed", range(2))
def test_a_feature_served_on_some_days_is_joined_on_the_others_only(tmp_path: Path, seed: int) -> None:
    given = drawn(seed, served=frozenset({2, 3}))
    found = measured(tmp_path, given)
    assert found["honest"] == pytest.approx(reckoned(given)[NE], rel=1e-6)
    assert found["value"] == pytest.approx(reckoned(given, outcomes="let in", stats="let in")[NE], rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_where_nothing_is_late_the_inflation_is_exactly_0(tmp_path: Path, seed: int) -> None:
    found = measured(tmp_path, drawn(seed, late=False), metric="ndcg@5")
    assert {name: one["inflation"] for name, one in found["metrics"].items()} == dict.fromkeys(
        (NE, "calibration_ratio", "auc", "ndcg@5"), NOTHING
    )
    assert (found["inflation"], moved(found)) == (NOTHING, {"outcomes": NOTHING, "stats": NOTHING})
    assert (found["late_outcomes"], found["value"]) == (0, found["honest"])
    assert found["sentence"].startswith("Nothing was late")


def test_outcomes_that_are_late_and_a_view_that_is_not_leak_through_the_outcomes_alone(tmp_path: Path) -> None:
    given = replace(drawn(3), views=drawn(3, late=False).views)
    found = moved(measured(tmp_path, given))
    assert found["stats"] == NOTHING
    assert found["outcomes"]["value"] != 0.0


@pytest.mark.parametrize("days", [-2, 3], ids=["in the log before it can be read", "in the log days after"])
def test_a_view_in_the_log_at_another_time_than_serving_reads_it_leaks(tmp_path: Path, days: int) -> None:
    given = drawn(4, late=False)
    shifted = [{**one, "day": max(0, one["day"] + days)} for one in given.views["stats"]]
    views = {"stats": [one for one in shifted if one["day"] < DAYS]}
    found = moved(measured(tmp_path, replace(given, views=views)))
    assert found["stats"]["value"] != 0.0
    assert found["outcomes"] == NOTHING


def test_what_serving_logged_cannot_leak_whatever_the_view_says(tmp_path: Path) -> None:
    found = measured(tmp_path, drawn(5, served=frozenset(range(DAYS))))
    assert moved(found)["stats"] == NOTHING
    assert "snapshot" not in found


def test_two_views_leak_each_by_itself_and_together(tmp_path: Path) -> None:
    """The second gives a feature that the model does not read."""
    given = drawn(6)
    found = measured(tmp_path, given, names=("stats", "more"))
    assert moved(found)["more"] == NOTHING
    assert found["value"] == pytest.approx(reckoned(given, outcomes="let in", stats="let in")[NE], rel=1e-6)
    assert set(found["snapshot"]) == {"stats", "more"}


def one_purchase(**changes: Any) -> Given:
    """A log in which nothing is late but one purchase of the last day before A."""
    given = drawn(7, late=False, views=False)
    shown = next(one for one in given.impressions if one["shown_at"] >= at(days=4, seconds=7200))
    event = {"request_id": shown["request_id"], "item_id": shown["item_id"], "kind": "buy", "retracted": False,
             "happened_at": at(days=4, seconds=86_300), "arrived_at": at(days=6), **changes}  # fmt: skip
    rest = [one for one in given.outcomes if one["request_id"] != shown["request_id"]]
    return replace(given, outcomes=[*rest, event])


def test_one_late_purchase_is_counted_and_moves_the_metric(tmp_path: Path) -> None:
    found = measured(tmp_path, one_purchase(), names=())
    assert (found["late_outcomes"], found["late_retractions"]) == (1, 0)
    assert found["metrics"]["calibration_ratio"]["inflation"]["value"] < 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"happened_at": at(days=5)},
        {"happened_at": at(days=5, seconds=20), "arrived_at": at(days=5, microseconds=-1)},
        {"happened_at": at(days=2)},
        {"arrived_at": at(days=5, microseconds=-1)},
        {"kind": "other"},
    ],
    ids=["happened at A", "arrived just before, by another clock", "before its impression", "in time", "other kind"],
)
def test_what_is_not_late_or_does_not_count_is_not_let_in(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = measured(tmp_path, one_purchase(**changes), names=())
    assert (found["late_outcomes"], found["inflation"]) == (0, NOTHING)


def test_a_retraction_that_arrives_later_is_let_in_too(tmp_path: Path) -> None:
    given = one_purchase(arrived_at=at(days=4, seconds=86_350))
    back = {**given.outcomes[-1], "arrived_at": at(days=6), "retracted": True}
    found = measured(tmp_path, replace(given, outcomes=[*given.outcomes, back]), names=())
    assert (found["late_outcomes"], found["late_retractions"]) == (0, 1)
    assert found["metrics"]["calibration_ratio"]["inflation"]["value"] > 0.0


def test_impressions_that_had_not_arrived_are_in_neither_read(tmp_path: Path) -> None:
    given = drawn(8, late=False, views=False)
    late = [{**one, "arrived_at": at(days=5, seconds=1)} for one in given.impressions if one["request_id"] == "r0090"]
    rows = [one for one in given.impressions if one["request_id"] != "r0090"]
    whole = measured(tmp_path / "a", given, names=())
    found = measured(tmp_path / "b", replace(given, impressions=[*rows, *late]), names=())
    assert whole["rows"] - found["rows"] == len(late) == 4


def test_where_nothing_had_arrived_it_cannot_say(tmp_path: Path) -> None:
    given = drawn(9, late=False, views=False)
    late = [{**one, "arrived_at": max(one["arrived_at"], at(days=6))} for one in given.impressions]
    found = measured(tmp_path, replace(given, impressions=late), names=())
    reason = "no impression shown since 2026-03-02T06:00:00Z had arrived by 2026-03-06T00:00:00Z"
    assert found == {"cannot": f"there is nothing to judge: {reason}"}


def test_a_metric_that_one_read_cannot_give_says_cannot_there_and_in_the_difference(tmp_path: Path) -> None:
    """No purchase of the days judged had landed by A: then there is no calibration ratio, and no entropy of a rate."""
    given = drawn(10, late=False, views=False)
    landed = [{**one, "arrived_at": max(one["arrived_at"], at(days=5))} for one in given.outcomes]
    found = measured(tmp_path, replace(given, outcomes=landed), names=())
    assert "normalised entropy would have moved by what cannot be said" in found["sentence"]
    for one in (found, *found["metrics"].values()):
        assert isinstance(one["value"], float)
        assert "cannot" in one["honest"]
        assert "cannot" in one["inflation"]


def test_a_metric_that_no_read_can_give_says_cannot(tmp_path: Path) -> None:
    given = drawn(11, views=False)
    single = [one for one in given.impressions if one["position"] == 1]
    found = measured(tmp_path, replace(given, impressions=single), names=(), metric="ndcg@5")
    assert found["metrics"]["ndcg@5"] == {"cannot": "the log has no lists: each request shows one item"}
    assert "value" in found["inflation"]
