"""Off-policy evaluation: what a new ranker would have earned on slates that another policy showed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sameworld.maths.bootstrap import Replicates, effective_sample_size, replicate_sums
from sameworld.maths.ranking import request_starts, require_same_length
from sameworld.records import Estimate, Refused

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ALL_POSITIONS = 2**31 - 1
CERTAIN = 1.0 - 1e-9  # a computed marginal of 1 may miss it by rounding
MIN_GROUP_ESS = 30.0  # fewer effective rows than this are no ground for a position's own normalisation


@dataclass(frozen=True)
class SlateLog:
    """Logged slates, one row an item shown, with what the target policy would have done there.

    request : int array, shape (n,): codes 0..R-1, contiguous and ascending;  position : int array, 1 at the top
    user : int array, any codes;  reward : float array, the gain of the row
    propensity : float array in (0, 1]: marginal probability that logging shows this item at this position; NaN: unknown
    target_match : float array in [0, 1]: probability that the target shows this item at this position (greedy: 0 or 1)
    q_logged : a model's expected reward of the item shown, here;  q_target : of the target's choice, here; default 0
    prefix_log_propensity, target_prefix_log : log probability of the shown items down to this position, in order, under
        logging and under the target (-inf: never); only `sn_rips` needs them
    unsupported : float array in [0, 1]: target's probability of items that logging never shows here, default 0
    """

    request: IntArray
    position: IntArray
    user: IntArray
    reward: FloatArray
    propensity: FloatArray
    target_match: FloatArray
    q_logged: FloatArray | None = None
    q_target: FloatArray | None = None
    prefix_log_propensity: FloatArray | None = None
    target_prefix_log: FloatArray | None = None
    unsupported: FloatArray | None = None

    def __post_init__(self) -> None:
        require_same_length(**{name: array for name, array in vars(self).items() if array is not None})
        finite = (self.reward, self.target_match, self.or_zero("q_logged"), self.or_zero("q_target"))
        numbers = (self.or_zero("prefix_log_propensity"), self.or_zero("target_prefix_log"))
        sound = all(np.isfinite(a).all() for a in finite) and not any(np.isnan(a).any() for a in numbers)
        if len(request_starts(self.request)) == 0 or self.position.min() < 1 or not sound:
            got = f"{len(self.request)} rows, a position below 1, or an entry among them that is no number"
            remedy = "leave those requests out, and count them"
            raise Refused(what="a slate log to evaluate", got=got, wanted="finite rows, one at least", remedy=remedy)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return int(self.request[-1]) + 1

    def or_zero(self, name: str) -> FloatArray:
        """Return an optional column, zeros where it was not given."""
        column: FloatArray | None = getattr(self, name)
        return np.zeros(len(self.request)) if column is None else column


@dataclass(frozen=True)
class WeightState:
    """Effective sample size of weights, the largest and its share of them all, their mean and its standard error."""

    ess: float
    largest_weight: float
    largest_share: float
    mean_weight: float
    mean_weight_se: float


@dataclass(frozen=True, kw_only=True)
class OpeResult(WeightState):
    """Expected gain a request under the target, its 95 % interval by user, and its weights pooled over 1..depth."""

    method: str
    value: float
    low: float
    high: float
    requests: int
    depth: int
    clipped_mass: float = 0.0  # nothing is ever clipped

    def as_record(self) -> dict[str, Any]:
        """Return the JSON-ready form."""
        return asdict(self)


def weight_state(weight: FloatArray, user: NDArray[Any]) -> WeightState:
    """Describe the weights of rows, shape (n,), that belong to users, shape (n,): the standard error is by user."""
    n, total, largest = len(weight), float(weight.sum()), float(weight.max())
    by_user = np.bincount(np.unique(user, return_inverse=True)[1], weights=weight - total / n)
    standard_error = float(np.sqrt(np.sum(by_user**2) * len(by_user) / max(len(by_user) - 1, 1))) / n
    share = largest / total if total > 0.0 else 1.0
    return WeightState(effective_sample_size(weight), largest, share, total / n, standard_error)


def position_weights(log: SlateLog) -> FloatArray:
    """IIPS weight of each row, shape (n,): target_match / propensity. Refused where a propensity is missing.

    Li et al., "Offline evaluation of ranking policies with click models", KDD 2018.
    """
    if reason := _missing(log):
        remedy = "leave those requests out, and count them"
        raise Refused(what="no position weights", got=reason, wanted="a propensity on every row", remedy=remedy)
    return log.target_match / log.propensity


def prefix_weights(log: SlateLog) -> FloatArray:
    """RIPS weight of each row, shape (n,): target's over logging's probability of the items down to this position.

    McInerney et al., "Counterfactual evaluation of slate recommendations ...", KDD 2020. Refused without prefixes.
    """
    if log.prefix_log_propensity is None or log.target_prefix_log is None:
        wanted, remedy = "prefix_log_propensity, target_prefix_log", "compute them from the logged candidates"
        raise Refused(what="no prefix weights", got="a log without prefixes", wanted=wanted, remedy=remedy)
    return np.exp(log.target_prefix_log - log.prefix_log_propensity)


def _position_groups(position: IntArray, weight: FloatArray) -> IntArray:
    """Group of each row's position for self-normalisation: its own where its ESS >= 30, else with its neighbours.

    Every weight has mean 1, so positions may share a normaliser; a deep position with hardly a match must.
    """
    total = np.bincount(position, weights=weight)
    squares = np.bincount(position, weights=weight**2)
    group, label, sum_w, sum_w2 = np.zeros(len(total), dtype=np.int64), 0, 0.0, 0.0
    for k in range(len(total) - 1, -1, -1):  # positions, deepest first, so that thin tails pool upwards
        group[k] = label
        sum_w, sum_w2 = sum_w + float(total[k]), sum_w2 + float(squares[k])
        if sum_w**2 >= MIN_GROUP_ESS * sum_w2 > 0.0:
            label, sum_w, sum_w2 = label + 1, 0.0, 0.0
    return np.minimum(group, max(label - 1, 0))[position]  # what is left at the top joins the group below it


def _replicates(
    log: SlateLog, weight: FloatArray, residual: FloatArray, base: FloatArray, counted: NDArray[np.bool_], **draw: int
) -> Replicates:
    """Replicates of Σ base / R + Σ_g (R_g / R) · Σ w·residual / Σ w over the groups g of the rows counted."""
    users, user = np.unique(log.user, return_inverse=True)
    group = _position_groups(log.position[counted], weight[counted])
    groups = int(group.max()) + 1
    cell = user[counted] * groups + group

    def table(values: FloatArray) -> FloatArray:
        sums = np.bincount(cell, weights=values, minlength=len(users) * groups)
        return sums.reshape(len(users), groups).astype(np.float64, copy=False)

    first = np.bincount(user[request_starts(log.request)], minlength=len(users)).astype(np.float64)
    w, ones = weight[counted], np.ones(len(cell))
    tables = (first[:, None], table(base[counted]), table(ones), table(w * residual[counted]), table(w))

    def value(sums: FloatArray) -> FloatArray:
        requests, model, rows, corrected, mass = np.split(sums, np.cumsum([1, groups, groups, groups]), axis=-1)
        return np.asarray((model + rows * corrected / mass).sum(axis=-1, keepdims=True) / requests)

    return replicate_sums(np.concatenate(tables, axis=1), **draw).through(value)


def _iips_dr_replicates(log: SlateLog, depth: int, **draw: int) -> Replicates:
    residual = log.reward - log.or_zero("q_logged")
    return _replicates(log, position_weights(log), residual, log.or_zero("q_target"), log.position <= depth, **draw)


def _result(method: str, log: SlateLog, weight: FloatArray, estimate: Estimate, depth: int) -> OpeResult:
    state = weight_state(weight[log.position <= depth], log.user[log.position <= depth])
    deepest = min(depth, int(log.position.max()))
    return OpeResult(method=method, requests=log.requests, depth=deepest, **vars(estimate), **vars(state))


def iips_dr(log: SlateLog, *, seed: int, replicates: int = 500, depth: int = ALL_POSITIONS) -> OpeResult:
    """Gain a request under the target by IIPS-DR: Σ_k E_target[q_k] + w_k (r_k − q_k), each position self-normalised.

    depth : count positions 1..depth only
    Unbiased where an item's reward depends on the item and its position (position-based model), whatever q is.
    Positions with fewer than 30 effective rows share a normaliser with their neighbours. Refused where a propensity is
    missing, or no row at all matches the target; `refusal` says whether the number may be shown.
    """
    estimate = _iips_dr_replicates(log, depth, seed=seed, replicates=replicates).estimates()[0]
    return _result("iips_dr", log, position_weights(log), estimate, depth)


def supported_prefix(log: SlateLog) -> int:
    """Deepest position down to which every prefix length has an effective sample size of 30 or more; 0 if none has."""
    weight, position = prefix_weights(log), log.position
    squares = np.bincount(position, weights=weight**2)[1:]
    enough = np.bincount(position, weights=weight)[1:] ** 2 >= np.maximum(MIN_GROUP_ESS * squares, 1e-300)
    return int(np.cumprod(enough).sum())


def sn_rips(log: SlateLog, *, seed: int, replicates: int = 500) -> OpeResult:
    """Gain a request from positions 1..`supported_prefix` under the target by SN-RIPS, right under a cascade too.

    Compare it only with `iips_dr` of the same depth. Refused where the supported prefix is 0.
    """
    weight, depth = prefix_weights(log), supported_prefix(log)
    if depth < 1:
        got, remedy = "an effective sample size under 30 at position 1", "explore more, or take more days"
        raise Refused(what="no prefix to check the estimate on", got=got, wanted="30 or more", remedy=remedy)
    zeros = np.zeros(len(weight))
    draws = _replicates(log, weight, log.reward, zeros, log.position <= depth, seed=seed, replicates=replicates)
    return _result("sn_rips", log, weight, draws.estimates()[0], depth)


def _per_request(log: SlateLog, worth: FloatArray, **draw: int) -> Replicates:
    users, user = np.unique(log.user, return_inverse=True)
    first = np.bincount(user[request_starts(log.request)], minlength=len(users))
    earned = np.bincount(user, weights=worth, minlength=len(users))
    return replicate_sums(np.stack([earned, first], axis=1), **draw).through(lambda sums: sums[..., :1] / sums[..., 1:])


def plain_ips(log: SlateLog, *, seed: int, replicates: int = 500) -> OpeResult:
    """Gain a request by plain IPS of the position weights, Σ w r / R: no model, no normalisation.

    For logs without lists let each row be a request: the value is then a row's.
    """
    weight = position_weights(log)
    estimate = _per_request(log, weight * log.reward, seed=seed, replicates=replicates).estimates()[0]
    return _result("plain_ips", log, weight, estimate, ALL_POSITIONS)


def logged_value(log: SlateLog, *, seed: int, replicates: int = 500) -> Estimate:
    """Gain a request that the logging policy itself earned."""
    return _per_request(log, log.reward, seed=seed, replicates=replicates).estimates()[0]


def lift(log: SlateLog, *, seed: int, replicates: int = 500) -> Estimate:
    """IIPS-DR value minus the logged value, paired: both are taken on the same drawn users."""
    target = _iips_dr_replicates(log, ALL_POSITIONS, seed=seed, replicates=replicates)
    return target.minus(_per_request(log, log.reward, seed=seed, replicates=replicates)).estimates()[0]


def unsupported_mass(log: SlateLog) -> float:
    """Share of the target's choices that logging could not have shown; a propensity of 1 rules out all other items."""
    ruled_out = np.where(log.propensity > CERTAIN, 1.0 - log.target_match, 0.0)
    return float(np.maximum(log.or_zero("unsupported"), ruled_out).mean())


def _missing(log: SlateLog) -> str | None:
    bad = float(np.mean(~((log.propensity > 0.0) & (log.propensity <= 1.0))))
    return f"the propensities are missing or outside (0, 1] for {100.0 * bad:.4g} % of the rows" if bad > 0.0 else None


def _deterministic(log: SlateLog) -> str | None:
    share = float(np.mean(np.minimum.reduceat(log.propensity, request_starts(log.request)) > CERTAIN))
    return f"the logging policy was deterministic for {100.0 * share:.4g} % of requests" if share > 0.99 else None


def _unsupported(log: SlateLog) -> str | None:
    mass = unsupported_mass(log)
    words = f"logging could never have shown {100.0 * mass:.3g} % of what the target would show, at most 1 % is allowed"
    return words if mass > 0.01 else None


def _one_user(log: SlateLog) -> str | None:
    one = bool(np.all(log.user == log.user[0]))
    return "all requests are of one user, so there is no interval by user" if one else None


def _weights_refused(log: SlateLog) -> str | None:
    state, expected = weight_state(position_weights(log), log.user), 1.0 - unsupported_mass(log)
    if state.ess < 100.0:
        return f"the effective sample size is {state.ess:.0f}, need 100"
    if state.largest_share > 0.05:
        return f"one weight ({state.largest_weight:.3g}) holds {100.0 * state.largest_share:.3g} % of all, over 5 %"
    if abs(state.mean_weight - expected) > 4.0 * state.mean_weight_se + 1e-6:  # propensities good to six digits
        mean = f"{state.mean_weight:.3f} ± {state.mean_weight_se:.3f}"
        return f"the propensities are wrong: the mean weight is {mean}, over 4 standard errors off {expected:.3f}"
    return None


def _interaction(log: SlateLog, **draw: int) -> str | None:
    if log.prefix_log_propensity is None or log.target_prefix_log is None or supported_prefix(log) < 1:
        return None
    check = sn_rips(log, **draw)
    main = iips_dr(log, **draw, depth=check.depth)
    if main.low <= check.high and check.low <= main.high:
        return None
    bounds = f"IIPS-DR says [{main.low:.4g}, {main.high:.4g}] and SN-RIPS [{check.low:.4g}, {check.high:.4g}]"
    return f"interaction detected: on positions 1..{check.depth} {bounds}; what stands above changes the reward"


def refusal(log: SlateLog, *, seed: int, replicates: int = 500) -> str | None:
    """Why no number may be shown for this log and target, in words; None when `iips_dr` may be shown.

    In order: propensities missing; logging deterministic (every shown propensity 1, in over 99 % of requests); over 1 %
    of the target's choices unsupported; one user; ESS < 100; one weight over 5 % of all; mean weight off 1 (less the
    unsupported share) by over 4 standard errors; IIPS-DR and SN-RIPS disjoint, where prefixes allow the check.
    """
    reason = _missing(log) or _deterministic(log) or _unsupported(log) or _one_user(log) or _weights_refused(log)
    return reason or _interaction(log, seed=seed, replicates=replicates)
