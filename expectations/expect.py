"""One expectation on one column of a profile: its bounds, its gravity, and the sentence that a finding says."""

from __future__ import annotations

from typing import Any

import great_expectations.expectations as gxe


def block(
    column: str, name: str, sentence: str, *, low: float | None = None, high: float | None = None, shows: str = ""
) -> Any:
    """Expect every value within [low, high], else BLOCK; see ``warn``."""
    return _between(column, {"id": name, "sentence": sentence, "shows": shows or column}, low, high, "critical")


def warn(
    column: str, name: str, sentence: str, *, low: float | None = None, high: float | None = None, shows: str = ""
) -> Any:
    """Expect every value within [low, high], else WARN.

    name : the finding's id; where a BLOCK and a WARN of one id fail for one row of the profile, the BLOCK stands
    sentence : a format of the profile's columns and ``low``, ``high`` (``pct`` writes a share, ``int`` a count)
    shows : the column to show as what was got, where it is not the one judged
    """
    return _between(column, {"id": name, "sentence": sentence, "shows": shows or column}, low, high, "warning")


def _between(column: str, meta: dict[str, str], low: float | None, high: float | None, severity: str) -> Any:
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, severity=severity, meta=meta)
