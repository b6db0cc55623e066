"""A closed-loop world with known truth: what a policy shows today becomes what its features say tomorrow.

Users meet items whose quality wanders and who are replaced; clicks depend on being looked at, purchases come days
later, feature services fail, and one served feature is the policy's own doing: an item's click rate in its own log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.policy import position_marginals, sample_orders
from sameworld.records import Refused
from sameworld.sources.closed_loop_frames import (
    Events,
    Serving,
    impressions_frame,
    item_stats_frame,
    outcomes_frame,
    requests_frame,
    user_profile_frame,
)
from sameworld.sources.closed_loop_log import ITEM_SERVICE, USER_SERVICE, CandidateFeatures, DayLog, Truth
from sameworld.sources.closed_loop_parameters import WorldParameters
from sameworld.sources.closed_loop_population import (
    OUTCOME_STREAM,
    SERVING_STREAM,
    SURFACES,
    Floats,
    Ints,
    Relevance,
    make_items,
    make_users,
    relevance,
    stream,
)
from sameworld.sources.closed_loop_traffic import DAY, HOUR, SECOND, UP, Traffic, draw_traffic, landing_lag, midnight

__all__ = ["CandidateFeatures", "DayLog", "Score", "Truth", "World", "WorldParameters", "heuristic"]

Score = Callable[[CandidateFeatures], NDArray[np.float64]]

CTR_PRIOR, CTR_PRIOR_IMPRESSIONS = 0.12, 20.0
BUY_PRIOR, BUY_PRIOR_CLICKS = 0.2, 10.0


def heuristic(features: CandidateFeatures) -> Floats:
    """Score by a plain weighted sum of served features, nulls as their usual value: the first logging model.

    Shape (requests, candidates). Good, and imperfect: it trusts an item's click rate as its own log has it.
    """
    seen = {name: np.nan_to_num(values, nan=NEUTRAL.get(name, 0.0)) for name, values in features.numbers.items()}
    return np.asarray(
        0.5 * seen["x_affinity"]
        + 0.4 * seen["x_content"]
        + 6.0 * (seen["x_item_ctr"] - CTR_PRIOR)
        + 2.0 * (seen["x_item_buy_rate"] - BUY_PRIOR)
    )


NEUTRAL = {"x_item_ctr": CTR_PRIOR, "x_item_buy_rate": BUY_PRIOR}


class World:
    """A world that is simulated day after day; worlds of equal parameters meet different policies with equal luck.

    Days follow each other from 0, since each feeds the next. A deep copy is a world that can take another course.

    >>> world = World(WorldParameters(days=2, requests_per_day=5, users=9, items=12, candidates=6, slots=3))
    >>> log = world.simulate_day(0)
    >>> log.impressions.height, log.truth.gain.shape
    (15, (5, 6))
    """

    def __init__(self, parameters: WorldParameters) -> None:
        self.parameters = parameters
        self.users, self.items = make_users(parameters), make_items(parameters)
        self.user_names = pl.Series([f"u{number:06d}" for number in range(parameters.users)], dtype=pl.String)
        self.item_names = pl.Series([f"i{number:06d}" for number in range(len(self.items.born))], dtype=pl.String)
        # known[k, day, item]: impressions, clicks and purchases by the day on which they arrived
        self._known = np.zeros((3, parameters.days, len(self.items.born)))
        self._days: list[Traffic] = []

    def simulate_day(
        self, day_index: int, score: Score | Mapping[str, Score] = heuristic, *, version: str = ""
    ) -> DayLog:
        """Serve one day's requests in the order that ``score`` and the policy give, and see what comes of it.

        score : the logging model, from features to finite scores (requests, candidates); a mapping from arm to model
            runs a test, with users split evenly among its arms
        version : the model's name in the log; default its function's name, in a test the arm's

        Raises Refused for a day out of turn, and for scores of another shape or that are not finite.
        """
        if day_index != len(self._days) or day_index >= self.parameters.days:
            raise Refused(what="a closed-loop world is simulated day by day", got=f"day {day_index}",
                          wanted=f"day {len(self._days)} of {self.parameters.days}",
                          remedy="simulate the days in order, or give the world more days")  # fmt: skip
        traffic = draw_traffic(self.parameters, self.users, self.items, day_index)
        self._days.append(traffic)
        statistics = [self._statistics(batch) for batch in (max(day_index - 1, 0), day_index)]
        features = self._features(traffic, day_index, statistics)
        serving = self._serve(features, day_index, score, version)
        return self._see(features, serving, day_index, statistics[1])

    def _see(self, features: CandidateFeatures, serving: Serving, day: int, statistics: dict[str, Floats]) -> DayLog:
        p, traffic, pairs = self.parameters, features.traffic, self._relevance(features.traffic)
        events = self._outcomes(traffic, serving.order, pairs, day)
        self._learn(traffic, serving.order, events)
        return DayLog(
            day=p.first_day + timedelta(days=day),
            requests=requests_frame(p, features, serving),
            impressions=impressions_frame(features, serving),
            outcomes=outcomes_frame(features, serving.order, events),
            item_stats=item_stats_frame(p, self.item_names, self.items, statistics, day),
            user_profile=user_profile_frame(p, self.user_names, self.users, day),
            features=features,
            scores=serving.scores,
            order=serving.order,
            shuffled=serving.shuffled,
            truth=Truth.of(pairs, p.theta),
        )

    def true_relevance(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Return these pairs with what is true of them at position 1, rows in their order.

        pairs : request_id and item_id, of days simulated so far; the item need not have been a candidate
        The new columns: ``true_click`` and ``true_target`` are probabilities, the target that of a purchase within
        the window; ``true_gain`` is the expected gain.

        Raises Refused for a request or item that this world does not know.
        """
        per_day = self.parameters.requests_per_day
        requests = pl.Series(
            [name for day in range(len(self._days)) for name in request_names(day, per_day)], dtype=pl.String
        )
        row, item = _numbers(pairs["request_id"], requests), _numbers(pairs["item_id"], self.item_names)
        user, batch, surface = (
            np.concatenate([getattr(day, name) for day in self._days])[row] for name in ("user", "batch", "surface")
        )
        true = relevance(self.parameters, self.users, self.items, user=user, item=item, batch=batch, surface=surface)
        return pairs.with_columns(true_click=true.click, true_target=true.target, true_gain=true.gain)

    def _relevance(self, traffic: Traffic) -> Relevance:
        user, batch, surface = (number[:, None] for number in (traffic.user, traffic.batch, traffic.surface))
        return relevance(
            self.parameters, self.users, self.items, user=user, item=traffic.item, batch=batch, surface=surface
        )

    def _statistics(self, batch: int) -> dict[str, Floats]:
        """Return the batch of item statistics: all that had arrived before its day began, each (items,)."""
        impressions, clicks, purchases = self._known[:, :batch].sum(axis=1)
        ctr = (clicks + CTR_PRIOR * CTR_PRIOR_IMPRESSIONS) / (impressions + CTR_PRIOR_IMPRESSIONS)
        buy_rate = (purchases + BUY_PRIOR * BUY_PRIOR_CLICKS) / (clicks + BUY_PRIOR_CLICKS)
        return dict(zip(ITEM_SERVICE, (ctr, buy_rate, clicks), strict=True))

    def _features(self, traffic: Traffic, day: int, statistics: list[dict[str, Floats]]) -> CandidateFeatures:
        item, shape = traffic.item, traffic.item.shape
        estimate = self.users.estimate[traffic.batch, traffic.user]
        affinity = np.einsum("nk,nck->nc", estimate, self.items.taste_estimate[item])
        user = [np.broadcast_to(estimate[:, axis, None], shape) for axis in range(estimate.shape[1])]
        hour = np.broadcast_to((traffic.shown_at % DAY // HOUR)[:, None], shape).astype(np.float64)
        age = (traffic.batch[:, None] - self.items.born[item]).astype(np.float64)
        newest = (traffic.batch == day)[:, None]
        item_values = {
            name: np.where(newest, statistics[1][name][item], statistics[0][name][item]) for name in ITEM_SERVICE
        }
        return CandidateFeatures(
            traffic=traffic,
            request_id=pl.Series(request_names(day, shape[0]), dtype=pl.String),
            user_names=self.user_names,
            item_names=self.item_names,
            numbers={"x_hour": hour, "x_content": self.items.content[item], "x_item_age_days": age}
            | _nulled(dict(zip(USER_SERVICE, (*user, affinity), strict=True)), traffic.user_service)
            | _nulled(item_values, traffic.item_service),
            words={
                "x_surface": pl.Series(SURFACES).gather(traffic.surface),
                "x_segment": pl.Series(("fast", "slow")).gather(self.users.slow[traffic.user].astype(np.int64)),
            },
        )

    def _serve(
        self, features: CandidateFeatures, day: int, score: Score | Mapping[str, Score], version: str
    ) -> Serving:
        p, n = self.parameters, features.shape[0]
        arms = score if isinstance(score, Mapping) else {version or getattr(score, "__name__", "model"): score}
        names, arm = list(arms), features.traffic.user % len(arms)
        scores = np.stack([_checked(model(features), features.shape) for model in arms.values()])[arm, np.arange(n)]
        seed = stream(p.seed, day, SERVING_STREAM).integers(2**62, size=n)
        order, shuffled = sample_orders(scores, tau=p.tau, epsilon=p.epsilon, seed=seed)
        order = order[:, : p.slots]
        version_of = [names[number] for number in arm.tolist()]
        return Serving(
            scores=scores,
            order=order,
            shuffled=shuffled,
            seed=seed,
            version=version_of,
            arm=version_of if isinstance(score, Mapping) else [None] * n,
            propensity=self._propensity(scores, order, features.traffic.log_propensity),
        )

    def _propensity(self, scores: Floats, order: Ints, sample: NDArray[np.bool_]) -> Floats:
        p, propensity = self.parameters, np.full(order.shape, np.nan)
        if sample.any():
            marginals = position_marginals(scores[sample], tau=p.tau, epsilon=p.epsilon, positions=p.slots)
            rows = np.arange(len(marginals))[:, None]
            propensity[sample] = marginals[rows, order[sample], np.arange(p.slots)]
        return propensity

    def _outcomes(self, traffic: Traffic, order: Ints, pairs: Relevance, day: int) -> list[Events]:
        """Draw what the shown candidates come to; every candidate has its own luck, wherever it is shown."""
        p, rng, shape = self.parameters, stream(self.parameters.seed, day, OUTCOME_STREAM), traffic.item.shape
        luck, purchase_luck, waited, patience = (*rng.random((2, *shape)), *rng.exponential(size=(2, *shape)))
        click_lag = landing_lag(rng, p.click_lag_hours * HOUR, shape)
        purchase_lag = landing_lag(rng, p.purchase_lag_hours * HOUR, shape)
        mean_days = np.where(self.users.slow[traffic.user], p.slow_delay_days, p.fast_delay_days)[:, None]
        click_after = np.rint(waited * 30 * SECOND).astype(np.int64) + SECOND
        buy_after = np.maximum(np.rint(patience * mean_days * DAY).astype(np.int64), click_after)
        clicked = np.take_along_axis(luck, order, axis=1) < p.theta * np.take_along_axis(pairs.click, order, axis=1)
        bought = clicked & np.take_along_axis(purchase_luck < pairs.purchase, order, axis=1)
        return [
            _events("click", traffic, order, happened=clicked, after=click_after, lag=click_lag),
            _events("purchase", traffic, order, happened=bought, after=buy_after, lag=purchase_lag),
        ]

    def _learn(self, traffic: Traffic, order: Ints, events: list[Events]) -> None:
        """Count what happened by the day on which the log has it; a batch reads the days before its own."""
        shown = np.take_along_axis(traffic.item, order, axis=1)
        arrived = np.broadcast_to(traffic.impression_arrived[:, None], shown.shape)
        rows = [(shown.ravel(), arrived.ravel())] + [
            (shown[kind.request, kind.slot], kind.arrived_at) for kind in events
        ]
        for known, (item, arrived_at) in zip(self._known, rows, strict=True):
            day = (arrived_at - midnight(self.parameters, 0)) // DAY
            inside = day < self.parameters.days
            np.add.at(known, (day[inside], item[inside]), 1.0)


def request_names(day: int, requests: int) -> list[str]:
    """Return the ids of a day's requests, in their order in time.

    >>> request_names(3, 2)
    ['r003-000000', 'r003-000001']
    """
    return [f"r{day:03d}-{number:06d}" for number in range(requests)]


def _events(kind: str, traffic: Traffic, order: Ints, *, happened: NDArray[np.bool_], after: Ints, lag: Ints) -> Events:
    request, slot = np.nonzero(happened)
    candidate = order[request, slot]
    happened_at = traffic.shown_at[request] + after[request, candidate]
    return Events(kind, request, slot, happened_at, happened_at + lag[request, candidate])


def _nulled(values: dict[str, Floats], service: Ints) -> dict[str, Floats]:
    """Take a service's features away, as NaN, from the requests for which it was out."""
    return {name: np.where((service == UP)[:, None], column, np.nan) for name, column in values.items()}


def _checked(scores: NDArray[np.float64], shape: tuple[int, int]) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != shape or not np.isfinite(values).all():
        raise Refused(what="a logging model's scores cannot be served", got=f"shape {values.shape}",
                      wanted=f"finite ones of shape {shape}",
                      remedy="score every candidate of every request")  # fmt: skip
    return values


def _numbers(names: pl.Series, known: pl.Series) -> Ints:
    """Return each name's place among the known ones."""
    places = pl.DataFrame({"name": known}).with_row_index("place")
    found = pl.DataFrame({"name": names}).join(places, on="name", how="left", maintain_order="left")["place"]
    if found.null_count():
        raise Refused(what="the world does not know this id", got=str(names.filter(found.is_null())[0]),
                      wanted=f"ids like {known[0] if len(known) else 'those of simulated days'}",
                      remedy="ask about requests of days simulated so far")  # fmt: skip
    return found.cast(pl.Int64).to_numpy()
