"""Numbers, times and absent knowledge in words, the way the report page writes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

MINUS = "\u2212"
_MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d")
_NAMES = {
    "mrr": "MRR",
    "auc": "AUC",
    "ece": "ECE",
    "ess": "effective sample size",
    "srm": "sample-ratio mismatch",
    "exposure_gini": "exposure Gini",
    "ab": "A/B test",
    "uri": "URI",
    "window_days": "window",
    "days_left": "left to run",
}
SIGNED = frozenset({"lift", "inflation", "trend", "delta"})
_HIGHER = ("ndcg", "mrr", "auc", "coverage", "gain", "reward")
_LOWER = ("normalised_entropy", "ece", "exposure_gini", "logloss")


def cannot(value: object) -> str | None:
    """Return the reason why a value is absent, or None where it is present.

    >>> cannot({"cannot": "no propensities"}), cannot(0.5)
    ('no propensities', None)
    """
    return str(value["cannot"]) if isinstance(value, Mapping) and "cannot" in value else None


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number (a bool is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_estimate(value: object) -> bool:
    """Tell whether a value is an estimate: a finite value, low and high.

    >>> is_estimate({"value": 1, "low": 0, "high": 2}), is_estimate({"value": 1})
    (True, False)
    """
    return isinstance(value, Mapping) and all(is_number(value.get(part)) for part in ("value", "low", "high"))


def decimals(*values: float, digits: int = 4) -> int:
    """Return how many decimals show the largest of the values with ``digits`` significant digits; 0 to 6.

    >>> decimals(0.8341, 0.79), decimals(1234.5), decimals(0.0)
    (4, 0, 0)
    """
    largest = max((abs(value) for value in values), default=0.0)
    return 0 if largest == 0 else min(6, max(0, digits - 1 - math.floor(math.log10(largest))))


def number(value: object, *, places: int | None = None, signed: bool = False) -> str:
    """Write a number with 4 significant digits and thousands separators; whole numbers keep all their digits.

    places : decimals to show whatever the size, so that a value and its interval line up
    Anything that is no number is written as it is; tiny numbers get an exponent.

    >>> number(1234567), number(0.123456), number(-0.5), number(0.004, signed=True), number(2e-9)
    ('1,234,567', '0.1235', '−0.5', '+0.004', '2e−09')
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    if places is None and value != 0 and abs(value) < 1e-6:
        text = f"{value:.4g}"
    elif isinstance(value, int) and not places:
        text = f"{value:,}"
    else:
        text = f"{value:,.{decimals(value) if places is None else places}f}"
        text = text.rstrip("0").rstrip(".") if places is None and "." in text else text
    return ("+" if signed and value > 0 else "") + text.replace("-", MINUS)


def share(value: object) -> str:
    """Write a share of 1 as a percentage with 4 significant digits.

    >>> share(0.91244), share(1), share(0.0)
    ('91.24 %', '100 %', '0 %')
    """
    return f"{number(float(value) * 100)} %" if is_number(value) else str(value)


def hours(value: object) -> str:
    """Write a length of time given in hours: minutes below one hour, days above 48.

    >>> hours(0.5), hours(6.25), hours(72), hours(1)
    ('30 minutes', '6.25 hours', '3 days', '1 hour')
    """
    if not is_number(value):
        return str(value)
    size = float(value)
    amount, unit = (size / 24, "day") if abs(size) > 48 else (size, "hour") if abs(size) >= 1 else (size * 60, "minute")
    return f"{number(round(amount, 2))} {unit}{'' if amount == 1 else 's'}"


def seconds(value: object) -> str:
    """Write a duration given in seconds; minutes above 120.

    >>> seconds(1.234), seconds(600), seconds(0.004)
    ('1.2 s', '10 min', '0 s')
    """
    if not is_number(value):
        return str(value)
    size = float(value)
    return f"{number(round(size / 60, 1))} min" if size > 120 else f"{number(round(size, 1))} s"


def moment(value: object) -> str:
    """Write an ISO 8601 time as UTC to the minute; anything else stays as it is.

    >>> moment("2026-03-20T00:00:00Z"), moment("2026-03-20"), moment("2026-03-20T01:00:00+01:00")
    ('2026-03-20 00:00 UTC', '2026-03-20', '2026-03-20 00:00 UTC')
    """
    text = str(value)
    if not _MOMENT.match(text):
        return text
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return text
    utc = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    return f"{utc:%Y-%m-%d %H:%M} UTC"


def humanise(key: object) -> str:
    """Turn a key of the report into words.

    >>> humanise("late_after_close"), humanise("ndcg@10"), humanise("auc"), humanise("landing_lag_hours")
    ('late after close', 'NDCG@10', 'AUC', 'landing lag')
    """
    text = str(key)
    text = text.removesuffix("_hours") if text != "_hours" else text
    return _NAMES.get(text, text.replace("ndcg@", "NDCG@").replace("_", " "))


def is_share(key: str) -> bool:
    """Tell by its key whether a number is a share of 1."""
    return key in {"rate", "share"} or key.endswith(("_share", "_rate")) or key.startswith("known by ")


def inherit(parent: str, key: str) -> str:
    """Give a key the unit that the section around it names.

    >>> inherit("landing_lag_hours", "q99"), inherit("labels", "rows")
    ('q99_hours', 'rows')
    """
    return f"{key}_hours" if parent.endswith("_hours") else key


def direction(metric: str) -> int:
    """Return 1 where more of a metric is better, -1 where less is, 0 where neither (a ratio to be near 1).

    >>> direction("ndcg@10"), direction("ece"), direction("calibration_ratio")
    (1, -1, 0)
    """
    return 1 if metric.startswith(_HIGHER) else -1 if metric.startswith(_LOWER) else 0


def spoken(key: str, value: object) -> str:
    """Write a plain value the way its key asks for: shares, hours, seconds, times, counts, lists.

    >>> spoken("closed_share", 0.25), spoken("q99_hours", 72.0), spoken("peak_mb", 1200.4), spoken("alarm", False)
    ('25 %', '3 days', '1,200 MB', 'no')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return moment(value)
    if isinstance(value, Sequence):
        return ", ".join(spoken(key, item) for item in value) or "none"
    if not is_number(value):
        return "not stated" if value is None else str(value)
    if is_share(key):
        return share(value)
    if key.endswith("hours"):
        return hours(value)
    if key == "seconds":
        return seconds(value)
    if key == "peak_mb":
        return f"{number(value, places=0)} MB"
    return number(value) + (" days" if key in {"window_days", "days_left"} else "")


def short(fingerprint: object) -> str:
    """Return the first 12 characters of a fingerprint, after any ``algorithm:`` prefix."""
    return str(fingerprint).rsplit(":", maxsplit=1)[-1][:12]


def spec_text(spec: object, *, prefix: str = "") -> str:
    """Write a spec as lines ``key.path = value`` in its own order; text stays as it is.

    >>> print(spec_text({"label": {"window_days": 7}, "base": "baseline"}))
    label.window_days = 7
    base = "baseline"
    """
    if not isinstance(spec, Mapping):
        return str(spec)
    lines = []
    for key, value in spec.items():
        path = f"{prefix}{key}"
        nested = isinstance(value, Mapping) and value
        lines.append(spec_text(value, prefix=f"{path}.") if nested else f"{path} = {_toml(value)}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def interval(key: str, estimate: Mapping[str, Any], *, signed: bool = False) -> tuple[str, str]:
    """Write an estimate as its value and its interval, with the same decimals in both.

    The interval's width gets 2 significant digits, as long as no number gets more than 4: beyond that is noise.

    >>> interval("auc", {"value": 0.83414, "low": 0.8312, "high": 0.8371})
    ('0.8341', '0.8312 to 0.8371')
    >>> interval("auc", {"value": 0.00412, "low": 0.00222, "high": 0.00602}, signed=True)
    ('+0.0041', '+0.0022 to +0.0060')
    >>> interval("closed_share", {"value": 0.5, "low": 0.25, "high": 0.75})
    ('50 %', '25 to 75 %')
    """
    value, low, high = (float(estimate[part]) for part in ("value", "low", "high"))
    if is_share(key):
        return share(value), f"{share(low).removesuffix(' %')} to {share(high)}"
    places = min(decimals(value, low, high), decimals(high - low, digits=2)) if high > low else decimals(value)
    written = [number(part, places=places if part else None, signed=signed) for part in (value, low, high)]
    return written[0], f"{written[1]} to {written[2]}"
