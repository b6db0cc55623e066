"""How many requests the examination is read from, and that the sample says what those requests say."""

import numpy as np
import polars as pl
import pytest

from benchmarks._examined_worlds import SMALL, estimated, simulated
from sameworld.models import examination
from sameworld.models.examination import examination_of_requests


@pytest.fixture(scope="module")
def world():
    """5,000 requests of three slots: some 500 clicks at the third."""
    return simulated(days=1, **SMALL["small"])


def sampled(world, monkeypatch, *, fewest, most, clicks):
    """The estimates, and those of an evenly spaced sample of each size to compare with."""
    for name, value in (("FEWEST_REQUESTS", fewest), ("MOST_REQUESTS", most), ("CLICKS_A_POSITION", clicks)):
        monkeypatch.setattr(examination, name, value)
    return [one.value for one in examination_of_requests(world.requests.lazy(), world.gained("click"), seed=1)]


def of_every(world, step):
    number = world.rows["request_id"].rle_id().to_numpy()
    return [one.value for one in estimated(world, "click", world.marginals(), number % step == 0)]


@pytest.mark.parametrize(
    ("fewest", "most", "clicks", "step"),
    [(1000, 9000, 10, 5), (10, 2500, 10_000, 2), (10, 9000, 10_000, 1)],
    ids=["clicks are enough", "at most so many", "all are needed"],
)
def test_an_evenly_spaced_sample_of_the_size_that_is_needed_is_read(world, monkeypatch, fewest, most, clicks, step):
    found = sampled(world, monkeypatch, fewest=fewest, most=most, clicks=clicks)
    np.testing.assert_allclose(found, of_every(world, step), rtol=1e-12)


def test_requests_without_a_known_law_are_left_out_and_none_at_all_gives_none(world):
    unknown = world.requests.lazy().with_columns(epsilon=pl.lit(None, pl.Float64))
    assert examination_of_requests(unknown, world.gained("click"), seed=1) is None
