"""Donor copies beside the same made row by row in plain Python; where all was served nothing is copied."""

from dataclasses import replace

import numpy as np
import pytest

from sameworld.maths.missingness import donor_masks
from sameworld.models import donor_copies as module
from sameworld.models.donor_copies import donor_copies, served_null_masks
from sameworld.models.features import Feature
from sameworld.models.training_table import TrainingTable

NAMES = ("x_a", "x_b", "x_c", "x_d")
SERVED = ("x_a", "x_b", "x_d", "x_never")


def table(requests=40, served=0.5, seed=1) -> TrainingTable:
    """Requests of 1 to 5 rows; whole requests lack x_a and x_b together, single rows x_c or x_d."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(1, requests + 1), rng.integers(1, 6, requests))
    n = len(request)
    matrix = rng.normal(size=(n, 5)).astype(np.float32)
    logged = rng.random(requests) < served
    out = (rng.random(requests) < 0.4) & logged
    matrix[out[request - 1], :2] = np.nan
    matrix[:, 2:4][rng.random((n, 2)) < 0.2] = np.nan
    zeros = np.zeros(n)
    return TrainingTable(
        features=tuple(Feature(name, "number") for name in NAMES), matrix=matrix, request=request,
        position=np.ones(n, np.int64), target=zeros, gain=zeros, completeness=zeros + 1, closed=zeros == 0,
        shown_at=np.full(n, "2026-03-01", "datetime64[us]"), served=logged[request - 1],
        item=np.zeros(n, np.int32), items=np.array(["i"]),
    )  # fmt: skip


def by_hand(rows: TrainingTable, seed: int) -> list[list[float]]:
    """Each copy's features, and what a model adds of itself, one after the other."""
    members: dict[int, list[int]] = {}
    for row, request in enumerate(rows.request.tolist()):
        members.setdefault(request, []).append(row)
    logged = {one: any(rows.served[row] for row in found) for one, found in members.items()}
    masks = []
    for request, found in members.items():
        if logged[request]:
            nulls = {k: sum(bool(np.isnan(rows.matrix[row, k])) for row in found) for k in (0, 1, 3)}
            masks.append({k for k in nulls if 2 * nulls[k] > len(found)})
    receivers = [request for request in members if not logged[request]]
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(0, len(masks), size=len(receivers))
    copies = []
    for request, donor in zip(receivers, drawn.tolist(), strict=True):
        for row in members[request]:
            values = rows.matrix[row].tolist()
            copies.append([float("nan") if k in masks[donor] else value for k, value in enumerate(values)])
    return copies


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [3, 100_000])
def test_copies_are_those_made_row_by_row(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    rows = table(seed=seed)
    copies = donor_copies(rows, SERVED, seed=seed)
    whole = copies.below(rows.matrix)
    np.testing.assert_array_equal(whole[: len(rows)], rows.matrix)
    np.testing.assert_array_equal(whole[len(rows) :], np.array(by_hand(rows, seed), np.float32))
    assert copies.of.tolist() == np.flatnonzero(~rows.served).tolist()


def test_a_copy_has_one_donor_s_whole_mask_so_features_stay_null_together() -> None:
    rows = table(requests=6000)
    whole = donor_copies(rows, SERVED, seed=3).below(rows.matrix)[len(rows) :]
    assert (np.isnan(whole[:, 0]) == np.isnan(whole[:, 1])).all()
    logged = rows.matrix[rows.served]
    assert np.isnan(whole[:, 0]).mean() == pytest.approx(np.isnan(logged[:, 0]).mean(), abs=0.04)


def test_features_that_are_not_served_and_what_a_model_adds_lose_nothing() -> None:
    rows = table()
    copies = donor_copies(rows, SERVED, seed=1)
    whole = copies.below(rows.matrix)[len(rows) :]
    np.testing.assert_array_equal(whole[:, [2, 4]], rows.matrix[copies.of][:, [2, 4]])


def test_a_row_and_its_copy_count_as_one() -> None:
    rows = table()
    copies = donor_copies(rows, SERVED, seed=1)
    behind = copies.rows(copies.with_copies(np.ones(len(rows), np.bool_)))
    assert np.bincount(behind, weights=copies.shares(len(rows))).tolist() == [1.0] * len(rows)


def test_a_copy_is_chosen_with_its_row_or_not_at_all() -> None:
    rows = table()
    copies, chosen = donor_copies(rows, SERVED, seed=1), np.random.default_rng(2).random(len(rows)) < 0.4
    both = copies.with_copies(chosen)
    assert copies.rows(both).tolist() == [*np.flatnonzero(chosen), *(row for row in copies.of if chosen[row])]
    assert copies.rows(copies.with_copies(chosen, copied=False)).tolist() == np.flatnonzero(chosen).tolist()


@pytest.mark.parametrize("served", [1.0, 0.0])
def test_where_all_rows_were_served_or_none_was_nothing_is_copied(served: float) -> None:
    rows, everything = table(served=served), np.ones(0, np.bool_)
    copies = donor_copies(rows, SERVED, seed=1)
    assert len(copies) == 0
    assert copies.below(rows.matrix) is rows.matrix
    assert copies.with_copies(everything) is everything
    assert copies.as_record(len(rows))["replayed_share"] == 0.0


def test_a_log_that_serves_no_feature_has_nothing_to_copy() -> None:
    rows = table()
    assert len(donor_copies(rows, ["x_other"], seed=1)) == 0


def test_words_say_what_was_replayed_or_why_nothing_was() -> None:
    rows = table()
    told = [donor_copies(one, SERVED, seed=1).as_record(len(one))["replay"] for one in (rows, table(served=0.0))]
    unserved, donors = int((~rows.served).sum()), len(np.unique(rows.request[rows.served]))
    assert told[0].startswith(f"{unserved} rows lack what was served: each counts half under the nulls of one of ")
    assert told[0].endswith(f"{donors} logged requests")
    assert told[1].endswith("no request logs it: there are no nulls to copy")
    whole = donor_copies(table(served=1.0), SERVED, seed=1).as_record(9)
    assert whole["replay"] == "every row has the features that were served"


def test_a_request_of_which_any_row_was_served_gives_and_takes_no_copy() -> None:
    rows = table(served=0.0)
    one = replace(rows, served=np.arange(len(rows)) == 0)
    first = rows.request == rows.request[0]
    copies = donor_copies(one, SERVED, seed=1)
    assert (copies.donors, copies.of.tolist()) == (1, np.flatnonzero(~first).tolist())


def test_masks_by_blocks_are_those_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = table(requests=60), np.array([0, 2, 3])
    places = np.flatnonzero(rows.served)
    whole = served_null_masks(rows, places, columns)
    monkeypatch.setattr(module, "BLOCK_ROWS", 2)
    assert served_null_masks(rows, places, columns).tolist() == whole.tolist()
    assert donor_masks(np.arange(3), whole, seed=5).shape == (3, 3)
