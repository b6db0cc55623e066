"""Requests that repeat each other, and users that ask like no person: found without a look at any label.

A page that is loaded again asks for the same list again. The log then holds one wish several times: its outcomes fall
in one of the copies, and the others say that nobody wanted it. So copies share the weight of one request, and what a
single user asks for on a day weighs no more than a limit allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Rule = Literal["weigh", "leave_out", "keep"]
TIMES_MEDIAN = 20  # a person who asks for this many times what the median user asks for is rare; a robot is not


@dataclass(frozen=True)
class Repeats:
    """Of each request, arrays (n,): its cluster from 0, how many copies that has, whether it is the last of them,
    whether its user is a bot, and what its user's requests weigh for being too many, in (0, 1].

    limit : requests a user may make on the day before counting as a bot
    """

    cluster: Ints
    copies: Ints
    last: Flags
    bot: Flags
    share: Floats
    limit: float

    @property
    def kept(self) -> Flags:
        """Whether a request stays where repeats are left out: the last copy, and no bot's."""
        return self.last & ~self.bot

    def weights(self, rule: Rule) -> Floats:
        """Return what each request weighs: ``weigh`` shares one weight among copies, ``leave_out`` is 0 or 1."""
        if rule == "leave_out":
            return self.kept.astype(np.float64)
        return self.share / self.copies if rule == "weigh" else np.ones(len(self.copies))


def find_repeats(user: Keys, known: Flags, items: Keys, at: Ints, *, within: int, least: int) -> Repeats:
    """Find, among the requests of one day, those that repeat an earlier one, and the users that are bots.

    user, items : arrays (n,), equal where the user, or the set of items shown (:func:`set_keys`), is the same
    known : whether the user is known; an unknown user repeats nothing and is no bot
    at : when it was shown; within : the most time (the same unit) between one copy and the next; a chain of copies,
        each near the one before, is one cluster however long it lasts
    least : requests a day that anyone may make

    A bot makes more requests than ``least`` and than 20 times the median of the day's users. What its clusters weigh
    is then scaled down to that limit. Of copies at the same time the later in the arrays is the last.

    >>> user, items = np.array([1, 1, 1, 2], np.uint64), np.array([7, 7, 7, 7], np.uint64)
    >>> found = find_repeats(user, np.ones(4, bool), items, np.array([0, 3, 90, 3]), within=10, least=50)
    >>> found.copies.tolist(), found.last.tolist(), found.weights("weigh").tolist()
    ([2, 2, 1, 1], [False, True, True, True], [0.5, 0.5, 1.0, 1.0])
    """
    cluster, last = _clusters(user, known, items, at, within)
    copies = np.bincount(cluster)[cluster]
    _, place, requests = np.unique(user[known], return_inverse=True, return_counts=True)
    limit = max(float(least), TIMES_MEDIAN * float(np.median(requests)) if len(requests) else 0.0)
    wishes = np.bincount(place, weights=1.0 / copies[known], minlength=len(requests))
    bots = requests > limit
    bot, share = np.zeros(len(user), np.bool_), np.ones(len(user))
    bot[known] = bots[place]
    share[known] = np.where(bots, np.minimum(1.0, limit / np.maximum(wishes, 1e-12)), 1.0)[place]
    return Repeats(cluster, copies, last, bot, share, limit)


def set_keys(item: Keys, starts: Ints) -> Keys:
    """Return a key of each request's set of items, shape (requests,), whatever the order in which they were shown.

    item : (rows,), a hash of each row's item; starts : (requests,), where each request's rows begin

    >>> first, same, other = set_keys(np.array([5, 6, 6, 5, 5, 7], np.uint64), np.array([0, 2, 4]))
    >>> bool(first == same), bool(first == other)
    (True, False)
    """
    return np.add.reduceat(mixed(item), starts) if len(starts) else np.zeros(0, np.uint64)


def mixed(value: Keys) -> Keys:
    """Return numbers so mixed that their sums tell sets apart (Steele et al., "Fast splittable…", OOPSLA 2014)."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def contradicted(key: Keys, at: Ints, target: NDArray[np.int8], *, within: int) -> tuple[Flags, Flags]:
    """Say of each row whether its key stands again near it in time, and whether the target then differs among those.

    key, at : (n,), what is shown and when; rows of one key form a chain while each is ``within`` of the one before
    target : (n,), 0 or 1

    >>> again, differs = contradicted(np.array([1, 1, 2, 2], np.uint64), np.arange(4), np.array([0, 1, 0, 0], np.int8),
    ...                               within=5)
    >>> again.tolist(), differs.tolist()
    ([True, True, True, True], [True, True, False, False])
    """
    order, chain = _chains(key, at, within)
    rows = np.bincount(chain)
    positives = np.bincount(chain, weights=target[order]).astype(np.int64)
    again, differs = np.zeros(len(key), np.bool_), np.zeros(len(key), np.bool_)
    again[order] = (rows > 1)[chain]
    differs[order] = ((positives > 0) & (positives < rows))[chain]
    return again, differs


def _clusters(user: Keys, known: Flags, items: Keys, at: Ints, within: int) -> tuple[Ints, Flags]:
    """Number the clusters; a request of nobody known is one of its own."""
    chosen = np.flatnonzero(known)
    order, chain = _chains(mixed(user[chosen]) + items[chosen], at[chosen], within)
    count = int(chain[-1]) + 1 if len(chain) else 0
    cluster, last = np.full(len(user), -1, np.int64), np.ones(len(user), np.bool_)
    cluster[chosen[order]] = chain
    last[chosen[order]] = np.r_[chain[1:] != chain[:-1], np.ones(min(len(chain), 1), np.bool_)]
    cluster[~known] = count + np.arange(len(user) - len(chosen))
    return cluster, last


def _chains(key: Keys, at: Ints, within: int) -> tuple[Ints, Ints]:
    """Return rows sorted by key and time, and the number of each one's chain in that order."""
    order = np.lexsort((at, key))
    sorted_key, sorted_at = key[order], at[order]
    new = (sorted_key[1:] != sorted_key[:-1]) | (sorted_at[1:] - sorted_at[:-1] > within)
    return order, np.r_[0, np.cumsum(new)][: len(order)].astype(np.int64)
