"""What the log must be: as much as usual, little of it quarantined, one row a key; what is merely unusual warns."""

from __future__ import annotations

from typing import Any

from expectations.expect import block, warn


def suite(
    *,
    min_volume_share: float,
    max_volume_share: float,
    max_quarantined_share: float,
    max_null_rate_move: float,
    max_repeated_move: float,
) -> list[Any]:
    """Return the expectations on the log's profile; the thresholds are shares (1.0 is a usual day, or all rows)."""
    return [
        *volume(min_volume_share, max_volume_share),
        *_quarantine(max_quarantined_share),
        *_rows(max_null_rate_move, max_repeated_move),
        *_kinds(),
    ]


def volume(low: float, high: float) -> list[Any]:
    """Return the expectations on how much landed, between these shares of a usual day."""
    kept = "landed: {kept_share:pct} of the {table} {usual}, need {low:pct}"
    landed = "landed: {landed_share:pct} of the {table} {usual}, at most {high:pct}"
    return [
        block("log_rows", "landed_nothing", "landed: the log has no impressions", low=1),
        block("kept_high", "landed_low", kept, low=low, shows="kept_share"),
        warn("kept_share", "landed_low", f"{kept} ({{caution}})", low=low),
        block("landed_low", "landed_high", landed, high=high, shows="landed_share"),
        warn("landed_share", "landed_high", f"{landed} ({{caution}})", high=high),
    ]


def _quarantine(high: float) -> list[Any]:
    where = "quarantined: {quarantined:int} of the {table} ({segment}), {quarantined_share:pct}: {reasons}"
    sentence = f"{where}; at most {{high:pct}}"
    return [
        block("quarantined_low", "quarantined", sentence, high=high, shows="quarantined_share"),
        warn("quarantined_share", "quarantined", f"{sentence} (so few rows may be chance)", high=high),
    ]


def _rows(max_null_rate_move: float, max_repeated_move: float) -> list[Any]:
    gaps = "positions: {gaps:int} of {requests:int} requests lack one between 1 and their last"
    nulls = "nulls: {name} is null in {null_rate:pct} of the day's {table}, usually in {usual_null_rate:pct}"
    repeated = "repeated: {repeated_share:pct} of the day's {table} were duplicates or conflicts, usually"
    return [
        block("repeated_keys", "keys", "keys: {repeated_keys:int} {table} share a key", high=0),
        warn("gaps", "positions", f"{gaps} ({{young_gaps:int}} more may still land)", high=0),
        warn("null_rate_move", "nulls", f"{nulls}; at most {{high:pct}} apart", high=max_null_rate_move),
        warn("repeated_move", "repeated", f"{repeated} {{usual_repeated_share:pct}}", high=max_repeated_move),
        warn("unknown_columns", "columns", "columns: unknown in {table} and ignored: {name}", high=0),
    ]


def _kinds() -> list[Any]:
    never = "kinds: no outcome of kind {name!r} has occurred"
    return [
        block("missing_target", "kind_missing", f"{never}, and it is the target", high=0),
        warn("missing_kind", "kind_missing", f"{never} yet; label.gains names it", high=0),
        warn("unnamed_rows", "kind_unnamed", "kinds: {name!r} ({rows:int} rows) has no gain in label.gains", high=0),
    ]
