"""The faults that can be planted in a clean drop, one function each; what a reader must make of every row is noted."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from worlds.sites import CONFLICT, DUPLICATE, KEPT, MICROSECOND, Row, Site, later

SKEW = timedelta(seconds=60)


def duplicate_same_day(site: Site) -> None:
    """Plant exact copies beside their originals."""
    for row, day in site.draw():
        site.note(row, day, DUPLICATE)


def resent_same_day(site: Site) -> None:
    """Plant copies that differ in ``arrived_at`` only, in the same day."""
    for row, day in site.draw():
        site.note(site.nudge(row, day), day, DUPLICATE)


def resent_later_day(site: Site) -> None:
    """Plant copies that arrived again a day later; one row is sent three times."""
    rows = site.draw()
    for row, day in rows:
        site.note(later(row), day + 1, DUPLICATE)
    site.note(later(rows[0][0], 2), rows[0][1] + 2, DUPLICATE)


def resent_at_midnight(site: Site) -> None:
    """Plant copies that arrived at the very first instant of the next day, which belongs to that day."""
    for row, day in site.draw():
        site.note(row | {"arrived_at": site.start(day + 1)}, day + 1, DUPLICATE)


def verbatim_in_later_day(site: Site) -> None:
    """Plant exact copies in the next day's folder: their ``arrived_at`` lies outside that day."""
    for row, day in site.draw():
        site.note(row, day + 1, "arrived_outside_day")


def conflict_same_day(site: Site) -> None:
    """Plant corrections that arrived later on the same day, and win."""
    for row, day in site.draw():
        new, winner = site.corrected(site.nudge(row, day))
        site.note(new, day, CONFLICT, winner=winner)


def conflict_later_day(site: Site) -> None:
    """Plant corrections that arrived a day later, and win."""
    for row, day in site.draw():
        new, winner = site.corrected(later(row))
        site.note(new, day + 1, CONFLICT, winner=winner)


def conflict_same_arrival(site: Site) -> None:
    """Plant contradictions with equal ``arrived_at``: nobody knows which is right. A request's pair is all planted."""
    for drawn, day in site.draw():
        is_request = site.table == "requests"
        row = site.fresh(drawn) if is_request else drawn
        site.note(row, day, "conflict_same_arrival", added=is_request)
        site.note(site.corrected(row)[0], day, "conflict_same_arrival")


def null_key(site: Site) -> None:
    """Plant rows that lack one of their ids or their kind."""
    for key in [name for name in site.keys if not name.endswith("_at")]:
        for row, day in site.draw():
            site.note(row | {key: None}, day, "null_key")


def arrived_before_event(site: Site) -> None:
    """Plant rows that arrived before they were shown, or by more than the allowed skew before they happened."""
    reason, allowed = ("arrived_before_happened", SKEW) if site.table == "outcomes" else ("arrived_before_shown", None)
    for early in (MICROSECOND, timedelta(seconds=1), timedelta(hours=3)):
        [(row, day)] = site.draw(1)
        event = row["arrived_at"] + early + (allowed or timedelta(0))
        site.note(site.fresh(row) | {site.event: event}, day, reason)


def arrived_outside_day(site: Site) -> None:
    """Plant rows a microsecond before their folder's day, and at its end."""
    for offset, extra in ((0, -MICROSECOND), (1, timedelta(0))):
        for row, day in site.draw():
            at = site.start(day + offset) + extra
            new = {"arrived_at": at, site.event: at - timedelta(hours=1)}
            site.note(site.fresh(row) | new, day, "arrived_outside_day")


def out_of_range_time(site: Site) -> None:
    """Plant times of 1970 (milliseconds read as microseconds) and the last instant of 1999."""
    for at in (datetime(1970, 1, 21, 12, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC) - MICROSECOND):
        for row, day in site.draw():
            site.note(site.fresh(row) | {site.event: at}, day, "out_of_range_time")


def year_2262(site: Site) -> None:
    """Plant times of 2262; that they lie after their own arrival comes first."""
    reason = "arrived_before_happened" if site.table == "outcomes" else "arrived_before_shown"
    for row, day in site.draw():
        site.note(site.fresh(row) | {site.event: datetime(2262, 4, 11, tzinfo=UTC)}, day, reason)


def nul_text(site: Site) -> None:
    """Plant a NUL in an id (in an outcome's kind: an id with a NUL would be an orphan first)."""
    column = {"requests": "request_id", "impressions": "item_id"}.get(site.table, "kind")
    for row, day in site.draw():
        new = site.fresh(row)
        site.note(new | {column: f"bad\0{new[column]}"}, day, "bad_text")


def huge_text(site: Site) -> None:
    """Plant an id of more than a mebibyte."""
    [(row, day)] = site.draw(1)
    new = site.fresh(row)
    site.note(new | {site.keys[-1]: "x" * (2**20 + 1)}, day, "bad_text")


def bad_score(site: Site) -> None:
    """Plant requests with a NaN or infinite candidate score."""
    for score in (math.nan, math.inf, -math.inf):
        [(row, day)] = site.draw(1)
        last = row["candidates"][-1] | {"score": score}
        site.note(site.fresh(row) | {"candidates": [*row["candidates"][:-1], last]}, day, "not_finite")


def bad_position(site: Site) -> None:
    """Plant positions 0 and -3."""
    for position in (0, -3):
        for row, day in site.draw():
            site.note(site.fresh(row) | {"position": position}, day, "bad_position")


def position_taken(site: Site) -> None:
    """Plant a second item at a taken position, the same day and a day later: neither can be believed."""
    for days in (0, 1):
        for row, day in site.draw():
            other = (later(row) if days else site.nudge(row, day)) | {"item_id": site.fresh(row)["item_id"]}
            site.note(row, day, "position_taken", added=False)
            site.note(other, day + days, "position_taken")


def bad_propensity(site: Site) -> None:
    """Plant propensities that are none."""
    for propensity in (0.0, -0.1, math.nextafter(1, 2), 1.5, math.inf, -math.inf):
        [(row, day)] = site.draw(1)
        site.note(site.fresh(row) | {"propensity": propensity}, day, "bad_propensity")


def odd_propensity(site: Site) -> None:
    """Plant propensities that are allowed: NaN (as null) and exactly 1, on one more item below each request."""
    for propensity in (math.nan, 1.0):
        for row, day in site.draw():
            new = {"propensity": propensity, "position": site.top + 1}
            site.note(site.fresh(row) | new, day, KEPT)


def no_request(site: Site) -> None:
    """Plant impressions whose request never comes."""
    for row, day in site.draw():
        new = site.fresh(row)
        site.note(new | {"request_id": f"unheard-of-{new['item_id']}", "position": 1}, day, "orphan")


def no_request_yet(site: Site) -> None:
    """Plant impressions of the log's last half minute, whose request may still come."""
    _last_seconds(site, {"position": 1})


def no_impression(site: Site) -> None:
    """Plant outcomes of unknown requests, and of items that a known request did not show."""
    for column in ("request_id", "item_id"):
        for row, day in site.draw():
            site.note(site.fresh(row) | {column: f"unheard-of-{site.made}"}, day, "orphan")


def no_impression_yet(site: Site) -> None:
    """Plant outcomes of the log's last half minute, whose impression may still come."""
    _last_seconds(site, {})


def _last_seconds(site: Site, new: Row) -> None:
    end = site.start(site.days)
    times = {"arrived_at": end - timedelta(seconds=10), site.event: end - timedelta(seconds=30)}
    for row, _ in site.draw():
        site.made += 1
        site.note(row | times | new | {"request_id": f"young-{site.made}"}, site.days - 1, KEPT)


def bad_value(site: Site) -> None:
    """Plant values that are no numbers."""
    for value in (math.nan, math.inf, -math.inf):
        [(row, day)] = site.draw(1)
        site.note(site.fresh(row) | {"value": value}, day, "not_finite")


def allowed_skew(site: Site) -> None:
    """Plant outcomes that arrived up to 60 s, and exactly 60 s, before they happened: clocks differ."""
    for early in (timedelta(seconds=1), timedelta(seconds=59), SKEW):
        [(row, day)] = site.draw(1)
        site.note(site.fresh(row) | {"happened_at": row["arrived_at"] + early}, day, KEPT)


def retracted_after(site: Site) -> None:
    """Plant retractions that arrived a day after their outcome."""
    for row, day in site.draw():
        site.note(later(row) | {"retracted": True}, day + 1, KEPT)


def retracted_before(site: Site) -> None:
    """Plant retractions that arrived before their outcome, without a value."""
    for row, day in site.draw():
        at = row["happened_at"] + (row["arrived_at"] - row["happened_at"]) / 2
        site.note(row | {"arrived_at": at, "retracted": True, "value": None}, day, KEPT)


def retracted_twice(site: Site) -> None:
    """Plant the same retraction on two days: the second is re-sent."""
    for row, day in site.draw():
        site.note(later(row) | {"retracted": True}, day + 1, KEPT)
        site.note(later(row, 2) | {"retracted": True}, day + 2, DUPLICATE)


def view_duplicate_same_day(site: Site) -> None:
    """Plant exact copies of a view's rows."""
    for row, day in site.draw():
        site.note(row, day, DUPLICATE)


def view_resent_later_day(site: Site) -> None:
    """Plant exact copies of a view's rows in the next day's folder; views carry no ``arrived_at``."""
    for row, day in site.draw():
        site.note(row, day + 1, DUPLICATE)


def view_null_key(site: Site) -> None:
    """Plant a view's rows that lack a key."""
    for key in site.keys[:-1]:
        for row, day in site.draw():
            site.note(row | {key: None}, day, "null_key")


Fault = Callable[[Site], None]
_ROWS: tuple[Fault, ...] = (
    duplicate_same_day,
    resent_same_day,
    resent_later_day,
    resent_at_midnight,
    verbatim_in_later_day,
    conflict_same_day,
    conflict_later_day,
    conflict_same_arrival,
    null_key,
    arrived_before_event,
    arrived_outside_day,
    out_of_range_time,
    year_2262,
    nul_text,
)
_REQUESTS = (*_ROWS, huge_text, bad_score)
_IMPRESSIONS = (*_ROWS, huge_text, bad_position, position_taken, bad_propensity, odd_propensity, no_request)
_OUTCOMES = (*_ROWS, no_impression, no_impression_yet, bad_value, allowed_skew)
_RETRACTIONS = (retracted_after, retracted_before, retracted_twice)
BY_TABLE: dict[str, tuple[Fault, ...]] = {
    "requests": _REQUESTS,
    "impressions": (*_IMPRESSIONS, no_request_yet),
    "outcomes": (*_OUTCOMES, *_RETRACTIONS),
}
VIEW_FAULTS: tuple[Fault, ...] = (view_duplicate_same_day, view_resent_later_day, view_null_key)
NEEDS_REQUESTS = {"no_request", "no_request_yet"}
NEEDS_CANDIDATES = {"bad_score"}
