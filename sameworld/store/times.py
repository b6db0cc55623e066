"""Times as text: ISO 8601 in UTC with Z, microseconds where there are any."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from sameworld.records import Refused


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 time that names its zone; a naive one is refused.

    >>> parse_time("2026-03-01T00:00:00Z")
    datetime.datetime(2026, 3, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(what="not a time", got=repr(text), wanted="ISO 8601, as in 2026-03-01T00:00:00Z") from None
    if moment.tzinfo is None:
        remedy = f"write {moment.isoformat()}Z"
        raise Refused(what="a time without a zone", got=repr(text), wanted="UTC", remedy=remedy)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Refused(what="not a time", got=repr(text), wanted="a UTC time in the years 1 to 9999") from None


def time_text(moment: datetime) -> str:
    """Write a time as ISO 8601 with Z.

    >>> time_text(datetime(2026, 3, 1, tzinfo=UTC))
    '2026-03-01T00:00:00Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_day(text: str) -> date:
    """Read a day.

    >>> parse_day("2026-03-01")
    datetime.date(2026, 3, 1)
    """
    try:
        day = date.fromisoformat(text)
        day + timedelta(days=1)  # its end has to be a time, too
        if day.isoformat() == text:  # one spelling: it is a folder's name as well
            return day
    except (ValueError, OverflowError):
        pass
    raise Refused(what="not a day", got=repr(text), wanted="YYYY-MM-DD, as in 2026-03-01")


def day_end(day: date) -> datetime:
    """Return the cutoff of a day: 00:00 UTC of the next.

    >>> day_end(date(2026, 3, 1))
    datetime.datetime(2026, 3, 2, 0, 0, tzinfo=datetime.timezone.utc)
    """
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def day_start(day: date) -> datetime:
    """Return a day's first instant."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
