"""Repeats among requests: against counting them one by one in plain Python, and the rules' promises."""

from collections import defaultdict
from statistics import median

import numpy as np
import pytest

from sameworld.maths.repeats import contradicted, find_repeats, set_keys

WITHIN, LEAST = 10, 5


def day(seed, n=400):
    """Few users and lists, whole minutes, so that copies, ties and the edge of the span meet."""
    rng = np.random.default_rng(seed)
    user = np.where(rng.random(n) < 0.3, 0, rng.integers(0, 40, n)).astype(np.uint64)
    return {
        "user": user,
        "known": rng.random(n) < 0.9,
        "items": rng.integers(0, 4, n).astype(np.uint64),
        "at": rng.integers(0, 600, n),
    }


def clusters_one_by_one(rows):
    """Walk through the requests in the order of time; a copy joins the cluster of the one before if that is near."""
    latest, clusters = {}, []
    for place in sorted(range(len(rows["at"])), key=lambda one: (rows["at"][one], one)):
        key = (int(rows["user"][place]), int(rows["items"][place]))
        before = latest.get(key) if rows["known"][place] else None
        if before is not None and rows["at"][place] - rows["at"][before[-1]] <= WITHIN:
            before.append(place)
        else:
            clusters.append([place])
            if rows["known"][place]:
                latest[key] = clusters[-1]
    return clusters


def bots_one_by_one(rows):
    count = defaultdict(int)
    for user, known in zip(rows["user"].tolist(), rows["known"].tolist(), strict=True):
        count[user] += known
    limit = max(LEAST, 20 * median(n for n in count.values() if n))
    return limit, {user for user, n in count.items() if n > limit}


@pytest.mark.parametrize("seed", range(6))
def test_clusters_are_those_that_a_walk_through_the_day_finds(seed):
    rows = day(seed)
    found, want = find_repeats(**rows, within=WITHIN, least=LEAST), clusters_one_by_one(rows)
    assert sum(len(one) > 1 for one in want) > 20
    for cluster in want:
        assert len(set(found.cluster[cluster])) == 1
        assert found.copies[cluster].tolist() == [len(cluster)] * len(cluster)
        assert found.last[cluster].tolist() == [place == cluster[-1] for place in cluster]
    assert len(set(found.cluster.tolist())) == len(want)


@pytest.mark.parametrize(("seed", "times"), [(0, 3), (1, 3), (2, 0)])
def test_bots_are_those_beyond_the_limit_and_weigh_no_more_than_it(seed, times):
    rows = day(seed)
    heavy = np.arange(len(rows["user"])) % 2 == 0
    rows["user"] = np.where(heavy & (times > 0), 77, rows["user"]).astype(np.uint64)
    found, (limit, bots) = find_repeats(**rows, within=WITHIN, least=LEAST), bots_one_by_one(rows)
    assert found.limit == limit
    assert found.bot.tolist() == [k and u in bots for u, k in zip(rows["user"].tolist(), rows["known"], strict=True)]
    weight = found.weights("weigh")
    for user in bots:
        of_user = rows["known"] & (rows["user"] == user)
        wishes = len(set(found.cluster[of_user].tolist()))
        assert np.isclose(weight[of_user].sum(), min(limit, wishes))
    assert not times or len(bots) == 1


def test_copies_share_one_weight_and_what_stands_once_weighs_one():
    rows = day(3)
    found = find_repeats(**rows, within=WITHIN, least=1000)
    weight = found.weights("weigh")
    assert np.allclose(np.bincount(found.cluster, weights=weight), 1.0)
    assert (weight[found.copies == 1] == 1.0).all()
    assert np.bincount(found.cluster, weights=found.weights("leave_out")).tolist() == [1.0] * (found.cluster.max() + 1)
    assert (found.weights("keep") == 1.0).all()


def test_an_unknown_user_repeats_nothing_and_is_no_bot():
    same = np.zeros(500, np.uint64)
    found = find_repeats(same, np.zeros(500, bool), same, np.zeros(500, np.int64), within=WITHIN, least=LEAST)
    assert (found.copies == 1).all()
    assert not found.bot.any()
    assert found.kept.all()


def test_no_requests_have_no_repeats():
    none = np.zeros(0, np.uint64)
    found = find_repeats(none, none.astype(bool), none, none.astype(np.int64), within=WITHIN, least=LEAST)
    assert (len(found.cluster), len(found.weights("weigh")), found.limit) == (0, 0, LEAST)
    assert len(set_keys(none, none.astype(np.int64))) == 0


def test_a_key_of_a_set_forgets_the_order_and_nothing_else():
    rng = np.random.default_rng(0)
    lists = [rng.choice(12, rng.integers(1, 6), replace=False) for _ in range(3000)]
    starts = np.cumsum([0, *map(len, lists)])[:-1]
    keys = set_keys(np.concatenate(lists).astype(np.uint64), starts).tolist()
    by_set = defaultdict(set)
    for items, key in zip(lists, keys, strict=True):
        by_set[frozenset(items.tolist())].add(key)
    assert all(len(found) == 1 for found in by_set.values())
    assert len({key for found in by_set.values() for key in found}) == len(by_set)


@pytest.mark.parametrize("seed", range(4))
def test_contradictions_are_those_of_chains_walked_one_by_one(seed):
    rng = np.random.default_rng(seed)
    key, at, target = rng.integers(0, 30, 300), rng.integers(0, 400, 300), (rng.random(300) < 0.2).astype(np.int8)
    again, differs = contradicted(key.astype(np.uint64), at, target, within=WITHIN)
    rows = {"user": key, "items": np.zeros(300), "known": np.ones(300, bool), "at": at}
    for chain in clusters_one_by_one(rows):
        values = set(target[chain].tolist())
        assert again[chain].tolist() == [len(chain) > 1] * len(chain)
        assert differs[chain].tolist() == [len(values) > 1] * len(chain)
