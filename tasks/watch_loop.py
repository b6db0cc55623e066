"""Watch the loop: how much of what a model learns from did its ancestors choose, and what would exploring more buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from sameworld.maths.bootstrap import user_bootstrap_difference
from sameworld.maths.loop import TargetRows, half_widths, smallest_enough
from sameworld.maths.ranking import gini
from sameworld.models.bundle import Bundle, load_bundle
from sameworld.models.exploration import target_rows
from sameworld.models.logging_policy import knows_policy
from sameworld.models.loop import summary
from sameworld.models.scored_rows import codes
from sameworld.models.served import explored, first_choices, served_requests
from sameworld.records import Cannot, Refused
from sameworld.sources.day_rows import DayRows
from sameworld.store.artifacts import Artifact
from sameworld.store.candidates import candidate_rows
from sameworld.store.log import Log
from sameworld.store.parts import Part, parts_of
from sameworld.store.step import Work, step
from sameworld.store.times import day_start, parse_day, time_text

MAX_REPLAYED = 2_000  # requests whose marginals are worked out anew: a few milliseconds each
EPSILONS = np.concatenate([[0.0], np.round(np.geomspace(1e-4, 1.0, 81), 6)])
DRAWN = slice(0, None, 4)
READ = ("request", "request_id", "item_id", "user_id", "gain", "closes_at")
BRANCHES = ("model", "shuffle")
EARNED = ("requests", "model_requests", "earned")


@step()
def watch_loop_day(work: Work, *, rows: DayRows, labels: Artifact) -> None:
    """Count one shown day: who ordered its requests, how wide the choice was, where the impressions went.

    By user it keeps what closed requests gained, less the day's mean: days differ, and so may their exploration.
    """
    table = labels.scan("labels")
    shown = table.select(name for name in table.collect_schema().names() if name in READ).collect(engine="streaming")
    served = served_requests(shown, rows.log, rows.day)
    chance, size = explored(served), served["impressions"].to_numpy()
    known = np.isfinite(chance)
    support, listed = first_choices(served, rows.log, rows.day)
    earned = _earned(served.filter(pl.col("closes_at") <= rows.until, pl.col("branch").is_in(BRANCHES)))
    work.rows = len(shown)
    work.record = {
        "day": rows.day.isoformat(),
        "impressions": len(shown),
        "requests": len(served),
        "explored": float(chance[known].sum()),
        "explored_of": int(known.sum()),
        "own": float(((1.0 - chance[known]) * size[known]).sum()),
        "own_of": int(size[known].sum()),
        "branches": int(served["branch"].is_in(BRANCHES).sum()),
        "support": float(support.sum()),
        "support_of": len(support),
        "concentration": len(shown) * _concentration(shown["item_id"], listed),
        "earned": {name: float(earned[name].sum()) for name in EARNED},
    }
    work.write("by_user", earned)


@step(reads=("evaluate.seed", "evaluate.replicates"))
def run(work: Work, *, log: Artifact, labels: Artifact) -> None:
    """Measure, over the training period and by day, what the loop looks like, and what exploring costs.

    One part a shown day; those of closed days are reused as they are. The alarm is raised where the choice narrows
    while exposure concentrates, both by their trends of 14 days: that is the self-fulfilling model at work. How much of
    the training set its ancestors chose is shown but raises none, since it saturates at one less what is explored.
    """
    view = Log.open(log, work.store)
    matures_after = timedelta(hours=labels.record["matures_after_hours"])

    def made(part: Part) -> Artifact:
        rows = DayRows.of(view, part.day, matures_after=matures_after, cutoff=work.now)
        return work.part(watch_loop_day, rows=rows, labels=part.artifact, cutoff=time_text(rows.until))

    parts = work.each(made, parts_of(labels, work.store))
    days = [part.record for part in parts]
    work.rows = sum(day["impressions"] for day in days)
    work.record = {
        "rows": work.rows,
        "requests": sum(day["requests"] for day in days),
        "from": time_text(day_start(parse_day(days[0]["day"]))),
        "to": time_text(work.now),
        **summary(days),
        "exploration_cost": _cost(work, parts),
        "parts": [{"day": part.record["day"], "fingerprint": part.fingerprint} for part in parts],
    }


def _concentration(shown: pl.Series, listed: pl.Series) -> float:
    """Return the Gini of impressions by item, over the items that were shown or could have been."""
    counts = shown.cast(pl.String).value_counts()
    never = int((~listed.cast(pl.String).is_in(counts[shown.name].implode())).to_numpy().sum())
    return gini(np.append(counts["count"].to_numpy(), np.zeros(never)))


def _earned(closed: pl.DataFrame) -> pl.DataFrame:
    """Return by user the requests and their gain beyond the day's mean, of all and of those that the model ordered."""
    users, user = closed["user"].unique().sort(), codes(closed["user"])
    gain = closed["gain"].to_numpy()
    model = (closed["branch"] == "model").to_numpy().astype(np.float64)
    beyond = gain - gain.mean() if len(gain) else gain
    columns = {"requests": np.ones(len(gain)), "beyond": beyond, "earned": gain, "model_requests": model,
               "model_beyond": model * beyond}  # fmt: skip
    sums = {name: np.bincount(user, values, len(users)).astype(np.float64) for name, values in columns.items()}
    return pl.DataFrame({"user": users, **sums})


def _cost(work: Work, parts: Sequence[Artifact]) -> dict[str, Any]:
    """Return the gain a request that the model's own orders have beyond all requests', shuffled ones among them."""
    totals = {name: sum(part.record["earned"][name] for part in parts) for name in EARNED}
    if not sum(part.record["branches"] for part in parts):
        return Cannot("no request logs its branch").as_record()
    if not 0 < totals["model_requests"] < totals["requests"]:
        lacking = "was shuffled" if totals["model_requests"] else "was ordered by the model"
        return Cannot(f"of the {totals['requests']:.0f} closed requests with a branch none {lacking}").as_record()
    rows = pl.concat([part.scan("by_user") for part in parts]).collect()
    columns = {name: rows[name].to_numpy() for name in rows.columns if name != "user"}
    own, every = (columns["model_beyond"], columns["model_requests"]), (columns["beyond"], columns["requests"])
    draw = {"seed": work.spec.evaluate.seed, "replicates": work.spec.evaluate.replicates}
    try:
        cost = user_bootstrap_difference(own, every, codes(rows["user"]), **draw).as_record()
    except Refused as refusal:
        return Cannot(str(refusal)).as_record()
    counts = {"requests": int(totals["requests"]), "shuffled": int(totals["requests"] - totals["model_requests"])}
    return {**cost, "gain": totals["earned"] / totals["requests"], **counts}


@step(reads=("evaluate.precision", "features"))
def budget(work: Work, *, log: Artifact, bundle: Artifact, evaluation: Artifact) -> None:
    """Predict how precise the off-policy value of the back-test's model would be at each share of shuffled requests.

    The marginals are worked out anew at each share, from the logged scores of an even sample of the judged requests;
    the precision asked for is relative to the value.
    """
    model, told = load_bundle(bundle), evaluation.record["policy_value"]
    if "requests" not in told:
        work.record = Cannot(str(told["cannot"])).as_record()
        return
    rows, epsilon = _target(work, Log.open(log, work.store), evaluation, model)
    if rows is None:
        reason = "no judged request logs all it takes: candidates with features and scores, tau and epsilon, and a gain"
        work.record = Cannot(reason).as_record()
        return
    requests = int(rows.request[-1]) + 1
    value = max(float(told.get("value", 0.0)), 0.0) or float(rows.expected.sum()) / requests
    work.rows = requests
    wanted = work.spec.evaluate.precision
    work.record = _budget(rows, epsilon, value=value, requests=int(told["requests"]), wanted=wanted)
    if "value" in told:
        work.record["measured"] = {"epsilon": epsilon, "half_width": (told["high"] - told["low"]) / 2 / value}


def _target(work: Work, view: Log, evaluation: Artifact, model: Bundle) -> tuple[TargetRows | None, float]:
    """Return the model's choices for a sample of the judged requests, and the share of them that was shuffled."""
    names = ("request_id", "user_id", "item_id", "position", "gain", "shown_at")
    judged = evaluation.scan("judged")
    shown = judged.select(name for name in judged.collect_schema().names() if name in names).collect()
    if not view.has("requests"):
        return None, 0.0
    asked = shown.select("request_id").unique(maintain_order=True)
    asked = asked.gather_every(max(1, -(-len(asked) // MAX_REPLAYED)))
    law = knows_policy(view.table("requests").join(asked.lazy(), on="request_id", how="semi"))
    policies = law.collect(engine="streaming")
    if not len(policies):
        return None, 0.0
    policies = policies.sort("request_id")
    shown = shown.join(policies.select("request_id"), on="request_id", how="semi", maintain_order="left")
    known = [name for name in ("shown_at", "user_id") if name in shown.columns]
    requests = shown.group_by("request_id", maintain_order=True).agg(pl.col(known).first())
    latest: datetime = requests.select(pl.col("shown_at").max()).item()
    features, until = [feature.name for feature in model.features], latest + timedelta(microseconds=1)
    candidates = candidate_rows(view, requests, features=features, views=work.spec.features.views, cutoff=until)
    return target_rows(shown, candidates, policies, model), round(float(policies["epsilon"].to_numpy().mean()), 9)


def _budget(rows: TargetRows, epsilon: float, *, value: float, requests: int, wanted: float) -> dict[str, Any]:
    relative = half_widths(rows, EPSILONS, requests=requests) / value
    enough = smallest_enough(EPSILONS, relative, wanted)
    best = int(np.argmin(relative))
    short = (
        f"no share of shuffled requests would bring the half-width of the policy's value to {wanted:.1%} of it on "
        f"{requests} requests; the best, {relative[best]:.1%}, would take {EPSILONS[best]:.3g}. "
        f"There it would take {(relative[best] / wanted) ** 2:.2g} times as many requests"
    )
    curve = zip(EPSILONS[DRAWN].tolist(), relative[DRAWN].tolist(), strict=True)
    return {
        "precision": wanted,
        "epsilon": epsilon,
        "half_width": _finite(float(half_widths(rows, [epsilon], requests=requests)[0]) / value),
        "epsilon_enough": Cannot(short).as_record() if enough is None else enough,
        "requests": requests,
        "sampled": int(rows.request[-1]) + 1,
        "curve": [{"epsilon": share, "half_width": _finite(width)} for share, width in curve],
    }


def _finite(width: float) -> float | Mapping[str, Any]:
    never = "some of the model's choices would never be shown"
    return width if np.isfinite(width) else Cannot(never).as_record()
