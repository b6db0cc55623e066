"""A news feed that explores: candidates with scores, a Plackett-Luce and shuffle mixture, batch author statistics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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

TEXT = pa.large_string()
TOPICS = ("arts", "climate", "crime", "food", "health", "local", "politics", "science", "sport", "world")
CATEGORY = pa.dictionary(pa.int8(), pa.string())
FEATURES = {
    "x_topic": CATEGORY,
    "x_recency_hours": pa.float32(),
    "x_author_score": pa.float64(),
    "x_is_video": pa.bool_(),
}
FACTS = Facts(("read", "share"), "share", 1, FEATURES, views={"author_stats": ("item_id",)})
STYLE = Style(files=3, compression="zstd", checksums=True)


@dataclass(frozen=True)
class NewsFeed:
    """The world's settings. Author statistics of a day can be read two days later, at 03:00 UTC."""

    seed: int = 0
    days: int = 12
    requests_per_day: int = 400
    slots: int = 6
    candidates: int = 15
    stories_per_day: int = 40
    authors: int = 60
    users: int = 900
    tau: float = 0.8
    epsilon: float = 0.08
    style: Style = STYLE


@dataclass(frozen=True)
class _Stories:
    published: Ints
    topic: Ints
    author: Ints
    video: Bools
    quality: Floats
    popularity: Floats
    author_score: Floats  # shape (authors, batches): batch b is readable from day b, 03:00; batch 0 is before the drop


@dataclass(frozen=True)
class _Feed:
    """Requests, and one entry an impression in ``request``, ``story`` and ``position``."""

    shown_at: Ints
    user: Ints
    candidates: Ints
    scores: Floats
    shuffled: Bools
    request: Ints
    story: Ints
    position: Ints


def write_news_feed(out: Path, world: NewsFeed) -> Shop:
    """Write the drop and return its record; the same world gives the same rows."""
    rng = np.random.default_rng([world.seed, 11])
    stories = _publish(rng, world)
    feed = _serve(rng, world, stories)
    arrived = feed.shown_at[feed.request] + crowd.lag(rng, len(feed.request), mean_hours=2 / 3, cap_hours=2)
    examination = 1 / np.arange(1, world.slots + 1) ** 0.8
    relevance = _relevance(rng, stories, feed)
    steps = (relevance["read"], relevance["share"] / relevance["read"])
    events, delays = _outcomes(rng, feed, *crowd.cascade(rng, examination[feed.position - 1], *steps))
    ids = (_request_id(feed.request), names("story/", feed.story, TEXT))
    tables = {
        "requests": _requests(rng, world, feed, arrived),
        "impressions": _impressions(rng, stories, feed, ids, arrived),
        "outcomes": outcome_table(events, ids, CATEGORY),
        "features/author_stats": _author_stats(world, stories),
    }
    truth = Truth(
        request_id=np.asarray(ids[0].to_pylist()),
        item_id=np.asarray(ids[1].to_pylist()),
        position=feed.position,
        shown_at=feed.shown_at[feed.request],
        arrived_at=arrived,
        relevance=relevance,
        delay_hours=delays,
        propensity=np.full(len(feed.request), np.nan),
        examination=examination,
    )
    return write_shop(out, tables, truth, FACTS, days=world.days, style=world.style)


def _publish(rng: np.random.Generator, world: NewsFeed) -> _Stories:
    count = world.stories_per_day * (world.days + 4)
    drift = rng.normal(0, 0.15, (world.authors, world.days + 1)).cumsum(axis=1)
    return _Stories(
        published=np.sort(START_US + (rng.uniform(-4, world.days, count) * DAY_US).astype(np.int64)),
        topic=rng.choice(len(TOPICS), count, p=crowd.zipf_weights(rng, len(TOPICS), 0.7)),
        author=rng.choice(world.authors, count, p=crowd.zipf_weights(rng, world.authors, 0.6)),
        video=rng.random(count) < 0.25,
        quality=rng.normal(0, 0.6, count),
        popularity=np.log(crowd.zipf_weights(rng, count, 0.8)),
        author_score=rng.normal(0, 1, (world.authors, 1)) + drift,
    )


def _batch(shown_at: Ints) -> Ints:
    """Return the newest author batch that a reader had at ``shown_at``."""
    return np.asarray((shown_at - START_US - 3 * HOUR_US) // DAY_US + 1)


def _serve(rng: np.random.Generator, world: NewsFeed, stories: _Stories) -> _Feed:
    shown_at = crowd.request_times(rng, days=world.days, per_day=world.requests_per_day)

    demand = np.exp(stories.popularity)

    def weights(requests: Ints) -> Floats:
        age_days = (shown_at[requests, None] - stories.published[None, :]) / DAY_US
        return np.where((age_days >= 0) & (age_days < 5), demand * np.exp(-np.abs(age_days)), 0.0)

    candidates = crowd.draw_distinct(rng, len(shown_at), weights, world.candidates)
    author_score = stories.author_score[stories.author[candidates], _batch(shown_at)[:, None]]
    scores = 0.5 * author_score + 0.3 * stories.video[candidates] + 0.25 * stories.popularity[candidates]
    shuffled = rng.random(len(shown_at)) < world.epsilon
    heat = np.where(shuffled[:, None], 0.0, scores / world.tau)
    order = np.argsort(-(heat + rng.gumbel(size=scores.shape)), axis=1)[:, : world.slots]
    return _Feed(
        shown_at=shown_at,
        user=rng.choice(world.users, len(shown_at), p=crowd.zipf_weights(rng, world.users, 0.5)),
        candidates=candidates,
        scores=scores,
        shuffled=shuffled,
        request=np.repeat(np.arange(len(shown_at)), world.slots),
        story=np.take_along_axis(candidates, order, axis=1).ravel(),
        position=np.tile(np.arange(1, world.slots + 1), len(shown_at)),
    )


def _served(stories: _Stories, feed: _Feed) -> tuple[Floats, Floats]:
    """Return recency in hours and the author's score, by impression."""
    shown_at = feed.shown_at[feed.request]
    recency = (shown_at - stories.published[feed.story]) / HOUR_US
    return recency, stories.author_score[stories.author[feed.story], _batch(shown_at)]


def _relevance(rng: np.random.Generator, stories: _Stories, feed: _Feed) -> dict[str, Floats]:
    recency, author_score = _served(stories, feed)
    topic_pull = rng.normal(0, 0.8, len(TOPICS))[stories.topic[feed.story]]
    user_mood = rng.normal(0, 0.4, feed.user.max() + 1)[feed.user[feed.request]]
    video = stories.video[feed.story]
    logit = -0.4 + 0.9 * author_score + topic_pull - 0.7 * np.log1p(recency / 12) + 0.5 * video
    read = crowd.sigmoid(logit + user_mood + stories.quality[feed.story])
    return {"read": read, "share": read * crowd.sigmoid(-1.6 + 0.6 * author_score + 0.5 * topic_pull)}


def _outcomes(
    rng: np.random.Generator, feed: _Feed, read: Bools, share: Bools
) -> tuple[list[Events], dict[str, Floats]]:
    """Return reads (some read twice), shares, and the hours until the first of each."""
    shown_at = feed.shown_at[feed.request]
    read_wait = crowd.waits(rng, np.full(len(read), 1 / 6))
    share_wait = read_wait + crowd.waits(rng, np.full(len(read), 3.0))
    again = np.flatnonzero(read & (rng.random(len(read)) < 0.08))
    firsts = (("read", np.flatnonzero(read), read_wait), ("share", np.flatnonzero(share), share_wait))
    events = [_landing(rng, kind, row, shown_at[row] + wait[row]) for kind, row, wait in firsts]
    again_at = shown_at[again] + read_wait[again] + crowd.waits(rng, np.full(len(again), 5.0))
    hours = {kind: np.full(len(read), np.inf) for kind, _, _ in firsts}
    for kind, row, wait in firsts:
        hours[kind][row] = wait[row] / HOUR_US
    return [*events, _landing(rng, "read", again, again_at)], hours


def _landing(rng: np.random.Generator, kind: str, row: Ints, happened_at: Ints) -> Events:
    """Land outcomes within half an hour: often before their impression, whose own lag is up to two hours."""
    seconds = rng.gamma(2, 40, len(row)) if kind == "read" else np.full(len(row), np.nan)
    arrived_at = happened_at + crowd.lag(rng, len(row), mean_hours=1 / 6, cap_hours=0.5)
    return Events(kind, row, happened_at, arrived_at, seconds)


def _request_id(request: Ints) -> pa.Array:
    return names("n", (request + 1) * 7_919_317 % 1_000_000_007, TEXT)  # in no order, as real ids are


def _user_id(feed: _Feed) -> pa.Array:
    return names("reader-", feed.user, TEXT)


def _requests(rng: np.random.Generator, world: NewsFeed, feed: _Feed, arrived: Ints) -> pa.Table:
    count = len(feed.shown_at)
    first_lag = np.minimum.reduceat(arrived, np.arange(0, len(arrived), world.slots)) - feed.shown_at
    offsets = pa.array(np.arange(count + 1) * world.candidates, pa.int32())
    parts = [names("story/", feed.candidates.ravel(), TEXT), pa.array(feed.scores.ravel())]
    shuffle = pa.array(feed.shuffled)
    return pa.table(
        {
            "request_id": _request_id(np.arange(count)),
            "user_id": _user_id(feed),
            "surface": pa.repeat(pa.scalar("feed", TEXT), count),
            "arm": pa.array(np.where(feed.user % 2, "a", "b")).cast(TEXT),
            "policy_id": pa.repeat(pa.scalar("pl-mix", TEXT), count),
            "model_version": names("m", feed.shown_at // DAY_US % 1000, TEXT),
            "branch": pc.if_else(shuffle, "shuffle", "model").cast(CATEGORY.value_type).dictionary_encode(),
            "shown_at": instants(feed.shown_at),
            "arrived_at": instants(feed.shown_at + (first_lag * rng.uniform(0.2, 1, count)).astype(np.int64)),
            "tau": pa.repeat(world.tau, count),
            "epsilon": pa.repeat(world.epsilon, count),
            "seed": pa.array(rng.integers(2**62, size=count)),
            "candidates": pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(parts, ["item_id", "score"])),
        }
    )


def _impressions(
    rng: np.random.Generator, stories: _Stories, feed: _Feed, ids: tuple[pa.Array, pa.Array], arrived: Ints
) -> pa.Table:
    recency, author_score = _served(stories, feed)
    count = len(recency)
    timeout = (rng.random(len(feed.shown_at)) < 0.05)[feed.request]  # the author service is out for whole requests
    recency_nan = np.where(rng.random(count) < 0.02, np.nan, recency)
    topic = pa.DictionaryArray.from_arrays(pa.array(stories.topic[feed.story], pa.int8()), pa.array(TOPICS))
    reasons = pa.array(np.concatenate([[0], np.cumsum(timeout)]), pa.int32())
    why = [pa.repeat("x_author_score", int(timeout.sum())), pa.repeat("timeout", int(timeout.sum()))]
    return pa.table(
        {
            "request_id": ids[0],
            "item_id": ids[1],
            "user_id": _user_id(feed).take(feed.request),
            "position": pa.array(feed.position, pa.int32()),
            "shown_at": instants(feed.shown_at[feed.request]),
            "arrived_at": instants(arrived),
            "propensity": pa.nulls(count, pa.float64()),
            "x_topic": pa.DictionaryArray.from_arrays(
                with_nulls(topic.indices, rng.random(count) < 0.01), topic.dictionary
            ),
            "x_recency_hours": with_nulls(pa.array(recency_nan.astype(np.float32)), rng.random(count) < 0.03),
            "x_author_score": with_nulls(pa.array(author_score), timeout),
            "x_is_video": with_nulls(pa.array(stories.video[feed.story]), rng.random(count) < 0.01),
            "null_reason": pa.MapArray.from_arrays(reasons, *why),
        }
    )


def _author_stats(world: NewsFeed, stories: _Stories) -> pa.Table:
    """Return a row a story and batch: what its author was worth two days before, for stories of the last five days."""
    at = START_US + DAY_US * np.arange(world.days) + 3 * HOUR_US
    age = at[:, None] - stories.published[None, :]
    day, story = np.nonzero((age >= 0) & (age < 5 * DAY_US))
    score = stories.author_score[stories.author[story], day + 1]
    return pa.table(
        {
            "item_id": names("story/", story, TEXT),
            "available_at": instants(at[day]),
            "author_score": pa.array(score),
            "author_followers": pa.array(np.exp(6 + score).astype(np.int64)),
            "author_desk": names("desk-", stories.author[story] % 7),
        }
    )
