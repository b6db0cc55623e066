"""A marketplace whose buyers take days: exact propensities in the impressions, no requests table, user views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from worlds import crowd
from worlds.drop_files import (
    DAY_US,
    HOUR_US,
    START_US,
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

SURFACES = ("app", "mail", "web")
FEATURES = {"x_surface": pa.string(), "x_category_code": pa.int64(), "x_price": pa.float64(), "x_seller": pa.string()}
VIEWS = {"user_stats": ("user_id",), "user_item": ("user_id", "item_id")}
TIER = pa.dictionary(pa.int8(), pa.string())
FACTS = Facts(("view", "cart", "purchase"), "purchase", 5, FEATURES, segments=("x_surface",), views=VIEWS)
STYLE = Style()


@dataclass(frozen=True)
class Marketplace:
    """The world's settings; mean hours from impression to purchase are by surface (app, mail, web)."""

    seed: int = 0
    days: int = 12
    requests_per_day: int = 400
    slots: int = 10
    candidates: int = 20
    block: int = 5
    epsilon: float = 0.1
    items: int = 2500
    users: int = 600
    sellers: int = 40
    categories: int = 30
    purchase_hours: tuple[float, float, float] = (5.0, 60.0, 24.0)
    landing_days: float = 2.0
    style: Style = STYLE


@dataclass(frozen=True)
class _Goods:
    category: Ints
    price: Floats
    seller: Ints
    quality: Floats
    popularity: Floats
    taste: Floats
    user_taste: Floats
    thrift: Floats  # by user: how much a high price puts them off


@dataclass(frozen=True)
class _Page:
    """One entry a request in the first three, one an impression in the others."""

    at: Ints
    user: Ints
    surface: Ints
    request: Ints
    item: Ints
    position: Ints
    propensity: Floats


def write_marketplace(out: Path, world: Marketplace) -> Shop:
    """Write the drop and return its record; the same world gives the same rows."""
    rng = np.random.default_rng([world.seed, 23])
    goods = _stock(rng, world)
    page = _serve(rng, world, goods)
    relevance = _relevance(rng, world, goods, page)
    examination = 1 / np.arange(1, world.slots + 1) ** 0.6
    steps = (relevance["view"], relevance["cart"] / relevance["view"], relevance["purchase"] / relevance["cart"])
    happened = crowd.cascade(rng, examination[page.position - 1], *steps)
    events, delays = _outcomes(rng, world, goods, page, happened)
    arrived = page.at[page.request] + crowd.lag(rng, len(page.request), mean_hours=1 / 6, cap_hours=0.5)
    ids = (names("q", page.request * 31 + 5), names("", page.item + 50_000))
    tables = {
        "impressions": _impressions(rng, goods, page, ids, arrived),
        "outcomes": outcome_table(events, ids, pa.string()),
        "features/user_stats": _user_stats(rng, world, goods),
        "features/user_item": _user_item(rng, world, goods, page),
    }
    truth = Truth(
        request_id=np.asarray(ids[0].to_pylist()),
        item_id=np.asarray(ids[1].to_pylist()),
        position=page.position,
        shown_at=page.at[page.request],
        arrived_at=arrived,
        relevance=relevance,
        delay_hours=delays,
        propensity=page.propensity,
        examination=examination,
    )
    return write_shop(out, tables, truth, FACTS, days=world.days, style=world.style)


def _stock(rng: np.random.Generator, world: Marketplace) -> _Goods:
    return _Goods(
        category=rng.choice(world.categories, world.items, p=crowd.zipf_weights(rng, world.categories, 0.6)),
        price=np.round(np.exp(rng.normal(3, 0.9, world.items)), 2).astype(np.float64),
        seller=rng.choice(world.sellers, world.items, p=crowd.zipf_weights(rng, world.sellers, 0.8)),
        quality=rng.normal(0, 0.3, world.items),
        popularity=np.log(crowd.zipf_weights(rng, world.items, 0.7)),
        taste=rng.normal(0, 1, (world.items, 3)),
        user_taste=rng.normal(0, 1, (world.users, 3)),
        thrift=rng.gamma(3, 0.25, world.users),
    )


def _serve(rng: np.random.Generator, world: Marketplace, goods: _Goods) -> _Page:
    """Rank by a stale score in blocks, shuffle within each block; with probability epsilon shuffle everything."""
    at = crowd.request_times(rng, days=world.days, per_day=world.requests_per_day)
    demand = np.exp(goods.popularity)
    drawn = crowd.draw_distinct(
        rng, len(at), lambda chosen: np.broadcast_to(demand, (len(chosen), world.items)), world.candidates
    )
    score = (0.6 * goods.popularity + 0.5 * goods.quality - 0.3 * np.log(goods.price))[drawn]
    ranked = np.take_along_axis(drawn, np.argsort(-score, axis=1, kind="stable"), axis=1)
    rank = np.arange(world.candidates)
    tiers = np.where(rng.random((len(at), 1)) < world.epsilon, 0, rank // world.block)
    order = np.argsort(tiers + rng.random(tiers.shape), axis=1)[:, : world.slots]
    at_home = order // world.block == rank[: world.slots] // world.block
    return _Page(
        at=at,
        user=rng.choice(world.users, len(at), p=crowd.zipf_weights(rng, world.users, 0.5)),
        surface=rng.choice(len(SURFACES), len(at), p=[0.5, 0.2, 0.3]),
        request=np.repeat(np.arange(len(at)), world.slots),
        item=np.take_along_axis(ranked, order, axis=1).ravel(),
        position=np.tile(rank[: world.slots] + 1, len(at)),
        propensity=(world.epsilon / world.candidates + (1 - world.epsilon) / world.block * at_home).ravel(),
    )


def _affinity(goods: _Goods, user: Ints, item: Ints) -> Floats:
    return np.asarray((goods.user_taste[user] * goods.taste[item]).sum(axis=1) / np.sqrt(3))


def _relevance(rng: np.random.Generator, world: Marketplace, goods: _Goods, page: _Page) -> dict[str, Floats]:
    user = page.user[page.request]
    dear = crowd.standard(np.log(goods.price))[page.item]
    seller = rng.normal(0, 0.7, world.sellers)[goods.seller[page.item]]
    category = rng.normal(0, 0.7, world.categories)[goods.category[page.item]]
    pull = seller + 0.7 * _affinity(goods, user, page.item) + goods.quality[page.item]
    mood = np.array([0.8, -1.2, -0.2])[page.surface[page.request]]
    view = crowd.sigmoid(-0.6 + mood + category - goods.thrift[user] * dear + pull)
    cart = view * crowd.sigmoid(-0.4 + 0.5 * pull)
    return {"view": view, "cart": cart, "purchase": cart * crowd.sigmoid(0.2 + 0.4 * pull - 0.3 * dear)}


def _outcomes(
    rng: np.random.Generator, world: Marketplace, goods: _Goods, page: _Page, happened: list[Bools]
) -> tuple[list[Events], dict[str, Floats]]:
    """Return views, carts, purchases (value: the price) and refunds, and the hours until each."""
    mean = np.array(world.purchase_hours)[page.surface[page.request]]
    view_wait = crowd.waits(rng, np.full(len(mean), 1 / 30))
    cart_wait = view_wait + crowd.waits(rng, 0.2 * mean)
    waits = {"view": view_wait, "cart": cart_wait, "purchase": cart_wait + crowd.waits(rng, 0.8 * mean)}
    events, hours = [], {}
    for (kind, wait), mask in zip(waits.items(), happened, strict=True):
        row = np.flatnonzero(mask)
        at = page.at[page.request[row]] + wait[row]
        value = goods.price[page.item[row]] if kind == "purchase" else np.full(len(row), np.nan)
        events.append(Events(kind, row, at, at + _landing(rng, world, len(row)), value))
        hours[kind] = np.where(mask, wait / HOUR_US, np.inf)
    return [*events, _refunds(rng, events[-1])], hours


def _landing(rng: np.random.Generator, world: Marketplace, count: int) -> Ints:
    """Return landing lags: within the hour for most, up to ``landing_days`` where a partner's batch brings them."""
    batch = rng.random(count) < 0.4
    hours = np.where(batch, rng.uniform(0, 24 * world.landing_days, count), rng.uniform(0, 1, count))
    return np.asarray((hours * HOUR_US).astype(np.int64) + 1)


def _refunds(rng: np.random.Generator, bought: Events) -> Events:
    back = np.flatnonzero(rng.random(len(bought.row)) < 0.05)
    arrived = bought.arrived_at[back] + (rng.uniform(0.5, 3, len(back)) * DAY_US).astype(np.int64)
    return Events("purchase", bought.row[back], bought.happened_at[back], arrived, bought.value[back], retracted=True)


def _impressions(
    rng: np.random.Generator, goods: _Goods, page: _Page, ids: tuple[pa.Array, pa.Array], arrived: Ints
) -> pa.Table:
    count = len(page.request)
    anonymous = (rng.random(len(page.at)) < 0.2)[page.request]
    return pa.table(
        {
            "item_id": ids[1],
            "request_id": ids[0],
            "position": pa.array(page.position, pa.int32()),
            "propensity": pa.array(page.propensity),
            "user_id": with_nulls(names("u", page.user[page.request]), anonymous),
            "x_surface": pa.array(SURFACES).take(pa.array(page.surface[page.request])),
            "x_category_code": with_nulls(pa.array(goods.category[page.item] * 100 + 7), rng.random(count) < 0.01),
            "x_price": with_nulls(pa.array(goods.price[page.item]), rng.random(count) < 0.01),
            "x_seller": with_nulls(names("seller ", goods.seller[page.item]), rng.random(count) < 0.02),
            "page_build": pa.array(page.request % 9, pa.int32()),  # a column that the contract does not know
            "shown_at": instants(page.at[page.request]),
            "arrived_at": instants(arrived),
        }
    )


def _user_stats(rng: np.random.Generator, world: Marketplace, goods: _Goods) -> pa.Table:
    """Return every user's row of each day, readable from 04:00 UTC: a noisy estimate of their thrift."""
    day, user = (grid.ravel() for grid in np.mgrid[0 : world.days, 0 : world.users])
    thrift = goods.thrift[user] + rng.normal(0, 0.1, len(user))
    tier = pa.DictionaryArray.from_arrays(pa.array((thrift < 0.5).astype(np.int8)), pa.array(["basic", "plus"]))
    return pa.table(
        {
            "user_id": names("u", user),
            "available_at": instants(START_US + day * DAY_US + 4 * HOUR_US),
            "thrift_estimate": pa.array(thrift),
            "orders_30d": pa.array(rng.poisson(3, len(user)), pa.int32()),
            "user_tier": tier.cast(TIER),
        }
    )


def _user_item(rng: np.random.Generator, world: Marketplace, goods: _Goods, page: _Page) -> pa.Table:
    """Return, for each pair shown on a day, a noisy affinity that is readable from 05:00 UTC of the next day."""
    day = (page.at[page.request] - START_US) // DAY_US
    pair = (day * world.users + page.user[page.request]) * world.items + page.item
    seen, times = np.unique(pair, return_counts=True)
    user, item = seen // world.items % world.users, seen % world.items
    at = START_US + (seen // (world.items * world.users) + 1) * DAY_US + 5 * HOUR_US
    return pa.table(
        {
            "user_id": names("u", user),
            "item_id": names("", item + 50_000),
            "available_at": instants(at),
            "affinity_estimate": pa.array(_affinity(goods, user, item) + rng.normal(0, 0.3, len(seen)), pa.float32()),
            "shown_1d": pa.array(times, pa.int32()),
        }
    )
