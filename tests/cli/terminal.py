"""Calls the command in this process, and builds drops small enough to look at."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from sameworld.sources.landing import land
from tasks.cli.main import call

FIRST = date(2026, 3, 1)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = self.document["error"]
        return found


def sameworld(*arguments: object) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def shown(day: int, requests: int = 20, **features: Any) -> pl.DataFrame:
    """Return a day's impressions, one a request, at noon; a feature is a value for all rows or a list."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=day)
    return pl.DataFrame(
        {
            "request_id": [f"r{day}-{number}" for number in range(requests)],
            "item_id": [f"i{number % 7}" for number in range(requests)],
            "position": pl.Series([1] * requests, dtype=pl.Int32),
            "shown_at": [at] * requests,
            "arrived_at": [at + timedelta(minutes=1)] * requests,
        }
    ).with_columns(pl.Series(name, v if isinstance(v, list) else [v] * requests) for name, v in features.items())


def outcomes(impressions: pl.DataFrame, kind: str, every: int, hours: float = 0.5) -> pl.DataFrame:
    """Let every n-th impression have an outcome after so many hours; it lands at once."""
    rows = impressions.gather_every(every).select("request_id", "item_id", "shown_at")
    happened = pl.col("shown_at") + timedelta(hours=hours)
    return rows.select("request_id", "item_id", kind=pl.lit(kind), happened_at=happened, arrived_at=happened)


def drop(out: Path, days: int, *kinds: tuple[str, int], **features: Any) -> Path:
    """Write a drop of some days whose outcomes are ``kinds``: name and every how many impressions."""
    for day in range(days):
        rows = shown(day, **features)
        events = [outcomes(rows, kind, every) for kind, every in kinds]
        tables = {"impressions": rows, **({"outcomes": pl.concat(events)} if events else {})}
        land(tables, out, FIRST + timedelta(days=day))
    return out
