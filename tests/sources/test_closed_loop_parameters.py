"""A closed-loop world's parameters: plain values in, mistakes refused."""

import re
from datetime import date

import pytest
from sources.small_worlds import small

from sameworld.records import Refused
from sameworld.sources.closed_loop import WorldParameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 9}, "got slots = 9; wanted at most candidates (8)"),
        ({"tau": 0.0}, "got tau = 0.0; wanted more than 0"),
        ({"epsilon": 1.5}, "got epsilon = 1.5; wanted a share in [0, 1]"),
        ({"examination": (0.9, 0.5, 0.4, 0.3)}, "wanted values in (0, 1], the first 1.0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(changes, message):
    with pytest.raises(Refused, match=re.escape(message)):
        small(**changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sedd": 1}, "did you mean 'seed'?"),
        ({"days": 1.5}, "wanted int, as in 28"),
        ({"first_day": "soon"}, "got 'soon'"),
    ],
)
def test_parameters_that_a_spec_gets_wrong_are_refused(values, message):
    with pytest.raises(Refused, match=re.escape(message)):
        WorldParameters.parse(values)


def test_parameters_from_a_spec_take_plain_values():
    parsed = WorldParameters.parse({"slots": 2, "examination": [1, 0.5], "window_days": 14, "first_day": "2026-01-01"})
    assert parsed == WorldParameters(slots=2, examination=(1.0, 0.5), window_days=14.0, first_day=date(2026, 1, 1))
