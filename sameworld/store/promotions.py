"""Promotions: numbered records, each written once; together they say what was production at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sameworld.records import Refused
from sameworld.store.artifacts import Store, canonical, read_record
from sameworld.store.times import parse_time


@dataclass(frozen=True)
class Promotion:
    """One promotion. ``previous`` is the version that it replaced; ``stage`` what it became."""

    number: int
    at: str
    version: str
    bundle: str
    bundle_fingerprint: str
    cutoff: str
    previous: str | None
    stage: str
    reason: str
    run: str
    by: str

    def as_record(self) -> dict[str, Any]:
        """Return the JSON form, with the contract's names ``from`` and ``to``."""
        record = asdict(self)
        record["from"], record["to"] = record.pop("previous"), record.pop("stage")
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Promotion:
        """Read the JSON form."""
        fields = dict(record)
        fields["previous"], fields["stage"] = fields.pop("from"), fields.pop("to")
        return cls(**fields)


def promotions(store: Store) -> list[Promotion]:
    """Return every promotion, oldest first."""
    found = (read_record(store, key, Promotion.from_record) for key in store.blobs.keys("promotions"))
    return sorted((one for one in found if one is not None), key=lambda one: one.number)


def in_production(events: Sequence[Promotion], *, stage: str, at: datetime | None = None) -> Promotion | None:
    """Return what held a stage at a time by the records' own clock (default: now), or None."""
    held = [one for one in events if one.stage == stage and (at is None or parse_time(one.at) <= at)]
    return held[-1] if held else None


def promote(store: Store, wanted: Promotion) -> Promotion:
    """Append a promotion and return it with its number.

    The same bundle at the same stage twice in a row is one record. A cutoff that is not newer than that of the
    stage's holder is refused: a backfill of an old day never replaces a newer model. Equal cutoffs keep the holder.
    """
    while True:
        events = promotions(store)
        holder = in_production(events, stage=wanted.stage)
        if holder and holder.bundle == wanted.bundle:
            return holder
        if holder and parse_time(wanted.cutoff) <= parse_time(holder.cutoff):
            raise Refused(
                what=f"a promotion moves forward in cutoff only ({wanted.stage})",
                got=wanted.cutoff,
                wanted=f"a cutoff after {holder.cutoff} ({holder.version})",
                remedy="a backfill of an old day never takes production back",
            )
        number = events[-1].number + 1 if events else 1
        record = replace(wanted, number=number, previous=holder.version if holder else None)
        if store.blobs.put_if_absent(f"promotions/{number:06d}.json", canonical(record.as_record())):
            return record
