"""A hotel search with graded outcomes: a deterministic order by a policy that the log does not know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from worlds import crowd
from worlds.drop_files import (
    DAY_US,
    HOUR_US,
    Bools,
    Events,
    Facts,
    Floats,
    Ints,
    Shop,
    Style,
    Truth,
    instants,
    names,
    outcome_table,
    with_nulls,
    write_shop,
)

FEATURES = {
    "x_distance_m": pa.int32(),
    "x_stars": pa.int32(),
    "x_reviews": pa.int32(),
    "x_nights": pa.int32(),
    "x_destination": pa.string(),
}
FACTS = Facts(("click", "long_click", "booking"), "booking", 2, FEATURES)
STYLE = Style(files=2, compression="gzip")


@dataclass(frozen=True)
class HotelSearch:
    """The world's settings: each request finds some of one destination's hotels free, the best four are shown."""

    seed: int = 0
    days: int = 12
    requests_per_day: int = 400
    slots: int = 4
    free: int = 9
    destinations: int = 200
    hotels_each: int = 15
    users: int = 1500
    style: Style = STYLE


@dataclass(frozen=True)
class _Hotels:
    """One entry a hotel; hotel h lies in destination h // hotels_each."""

    distance: Ints
    stars: Ints
    reviews: Ints
    quality: Floats
    prior: Floats


@dataclass(frozen=True)
class _Results:
    """One entry a request in the first four, one an impression in the others."""

    at: Ints
    user: Ints
    destination: Ints
    nights: Ints
    request: Ints
    hotel: Ints
    position: Ints


def write_search(out: Path, world: HotelSearch) -> Shop:
    """Write the drop and return its record; the same world gives the same rows."""
    rng = np.random.default_rng([world.seed, 37])
    hotels = _build(rng, world)
    found = _serve(rng, world, hotels)
    relevance = _relevance(rng, world, hotels, found)
    examination = np.array([0.85**k for k in range(world.slots)])
    click, long_click, booking = relevance.values()
    happened = crowd.cascade(rng, examination[found.position - 1], click, long_click / click, booking / long_click)
    events, delays = _outcomes(rng, found, happened)
    arrived = found.at[found.request] + crowd.lag(rng, len(found.request), mean_hours=1 / 18, cap_hours=1 / 6)
    ids = (_request_id(found.request), names("hotel-", found.hotel))
    tables = {
        "requests": _requests(rng, found),
        "impressions": _impressions(rng, hotels, found, ids, arrived),
        "outcomes": outcome_table(events, ids, pa.string()),
    }
    truth = Truth(
        request_id=np.asarray(ids[0].to_pylist()),
        item_id=np.asarray(ids[1].to_pylist()),
        position=found.position,
        shown_at=found.at[found.request],
        arrived_at=arrived,
        relevance=relevance,
        delay_hours=delays,
        propensity=np.ones(len(found.request)),
        examination=examination,
    )
    return write_shop(out, tables, truth, FACTS, days=world.days, style=world.style)


def _build(rng: np.random.Generator, world: HotelSearch) -> _Hotels:
    count = world.destinations * world.hotels_each
    stars = rng.integers(1, 6, count)
    reviews = np.exp(rng.normal(4, 1.2, count)).astype(np.int64)
    return _Hotels(
        distance=np.exp(rng.normal(7.5, 0.9, count)).astype(np.int64),
        stars=stars,
        reviews=reviews,
        quality=rng.normal(0, 0.3, count),
        prior=0.5 * crowd.standard(np.log1p(reviews)) + rng.normal(0, 1, count),  # what the unknown policy goes by
    )


def _serve(rng: np.random.Generator, world: HotelSearch, hotels: _Hotels) -> _Results:
    at = crowd.request_times(rng, days=world.days, per_day=world.requests_per_day)
    destination = rng.choice(world.destinations, len(at), p=crowd.zipf_weights(rng, world.destinations, 0.7))
    free = crowd.draw_distinct(rng, len(at), lambda chosen: np.ones((len(chosen), world.hotels_each)), world.free)
    hotel = destination[:, None] * world.hotels_each + free
    order = np.argsort(-hotels.prior[hotel], axis=1, kind="stable")[:, : world.slots]
    return _Results(
        at=at,
        user=rng.integers(world.users, size=len(at)),
        destination=destination,
        nights=rng.geometric(0.4, len(at)),
        request=np.repeat(np.arange(len(at)), world.slots),
        hotel=np.take_along_axis(hotel, order, axis=1).ravel(),
        position=np.tile(np.arange(1, world.slots + 1), len(at)),
    )


def _relevance(rng: np.random.Generator, world: HotelSearch, hotels: _Hotels, found: _Results) -> dict[str, Floats]:
    far = crowd.standard(np.log(hotels.distance + 1.0))[found.hotel]
    known = crowd.standard(np.log1p(hotels.reviews))[found.hotel]
    place = rng.normal(0, 0.5, world.destinations)[found.destination[found.request]]
    appeal = 0.45 * (hotels.stars[found.hotel] - 3) - 0.7 * far + 0.3 * known + hotels.quality[found.hotel]
    click = crowd.sigmoid(-0.5 + place + appeal)
    long_click = click * crowd.sigmoid(0.3 + 0.5 * appeal)
    booking = long_click * crowd.sigmoid(-0.6 + 0.5 * appeal - 0.2 * (found.nights[found.request] - 2))
    return {"click": click, "long_click": long_click, "booking": booking}


def _outcomes(
    rng: np.random.Generator, found: _Results, happened: list[Bools]
) -> tuple[list[Events], dict[str, Floats]]:
    """Return clicks (no value), long clicks (seconds) and bookings (revenue), and the hours until each."""
    count = len(found.request)
    click_wait = crowd.waits(rng, np.full(count, 1 / 100))
    long_wait = click_wait + crowd.waits(rng, np.full(count, 1 / 40), least_seconds=30)
    waits = {"click": click_wait, "long_click": long_wait, "booking": long_wait + crowd.waits(rng, np.full(count, 9.0))}
    values = {
        "click": np.full(count, np.nan),
        "long_click": (long_wait - click_wait) / 1e6,
        "booking": np.round(80 * found.nights[found.request] * rng.gamma(4, 0.25, count), 2),
    }
    events, hours = [], {}
    for (kind, wait), mask in zip(waits.items(), happened, strict=True):
        row = np.flatnonzero(mask)
        at = found.at[found.request[row]] + wait[row]
        late = crowd.lag(rng, len(row), mean_hours=4 if kind == "booking" else 0.25, cap_hours=12)
        events.append(Events(kind, row, at, at + late, values[kind][row]))
        hours[kind] = np.where(mask, wait / HOUR_US, np.inf)
    return events, hours


def _request_id(request: Ints) -> pa.Array:
    return names("", (request + 1) * 6_700_417 % 1_000_000_007)


def _user_id(found: _Results) -> pa.Array:
    return with_nulls(names("guest", found.user), found.user % 10 < 3)  # three in ten search without an account


def _requests(rng: np.random.Generator, found: _Results) -> pa.Table:
    """Return requests, which land up to two hours later: long after most of their impressions."""
    count = len(found.at)
    return pa.table(
        {
            "request_id": _request_id(np.arange(count)),
            "user_id": _user_id(found),
            "surface": pa.repeat("search", count).dictionary_encode(),
            "arm": pa.nulls(count, pa.string()),
            "policy_id": pa.nulls(count, pa.string()),
            "model_version": with_nulls(names("rank-", found.at // DAY_US % 100), rng.random(count) < 0.05),
            "branch": pa.nulls(count, pa.string()),
            "shown_at": instants(found.at),
            "arrived_at": instants(found.at + crowd.lag(rng, count, mean_hours=2 / 3, cap_hours=2)),
            "tau": pa.nulls(count, pa.float64()),
            "epsilon": pa.nulls(count, pa.float64()),
            "seed": pa.nulls(count, pa.int64()),
        }
    )


def _impressions(
    rng: np.random.Generator, hotels: _Hotels, found: _Results, ids: tuple[pa.Array, pa.Array], arrived: Ints
) -> pa.Table:
    count = len(found.request)
    destination = names("Bad Ort am See ", found.destination[found.request])
    return pa.table(
        {
            "request_id": ids[0],
            "item_id": ids[1],
            "user_id": _user_id(found).take(found.request),
            "position": pa.array(found.position, pa.int32()),
            "shown_at": instants(found.at[found.request]),
            "arrived_at": instants(arrived),
            "propensity": pa.nulls(count, pa.float64()),
            "x_distance_m": pa.array(hotels.distance[found.hotel], pa.int32()),
            "x_stars": pa.array(hotels.stars[found.hotel], pa.int32()),
            "x_reviews": with_nulls(pa.array(hotels.reviews[found.hotel], pa.int32()), rng.random(count) < 0.05),
            "x_nights": pa.array(found.nights[found.request], pa.int32()),
            "x_destination": with_nulls(destination, rng.random(count) < 0.01),
        }
    )
