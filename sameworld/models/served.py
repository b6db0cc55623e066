"""A day's requests as they were served: who ordered them, and how wide the choice of the first item was."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sameworld.maths.loop import effective_share
from sameworld.models.logging_policy import knows_policy
from sameworld.models.rank import padded
from sameworld.store.log import Log
from sameworld.store.times import day_end, day_start

Floats = NDArray[np.float64]

MAX_LISTS = 5_000  # candidate lists read of a day, evenly: more only narrow an average that is narrow already
AROUND = timedelta(hours=1)  # a request may begin on one day and go on into the next
LAW = {"branch": pl.String, "epsilon": pl.Float64}


def served_requests(shown: pl.DataFrame, log: Log, day: date) -> pl.DataFrame:
    """Return one row a request, in the order of ``shown``, with who ordered it as far as the log says.

    shown : the day's labels: request (a number a request, its rows together), request_id, gain, closes_at and, where
        known, user_id
    columns : request_id, user, impressions, gain, closes_at (of its last row), branch, epsilon (null where not known);
        an unknown user counts as its request
    """
    starts = np.flatnonzero(np.diff(shown["request"].to_numpy().astype(np.int64), prepend=-1))
    request = pl.lit("request ") + pl.col("request_id")
    user = pl.coalesce(pl.lit("user ") + pl.col("user_id"), request) if "user_id" in shown.columns else request
    closes = shown["closes_at"].to_physical().to_numpy()
    gain = shown["gain"].to_numpy().astype(np.float64)
    served = shown.select("request_id", user=user)[starts].with_columns(
        impressions=pl.Series(np.diff(np.append(starts, len(shown)))),
        gain=pl.Series(np.add.reduceat(gain, starts)),
        closes_at=pl.Series(np.maximum.reduceat(closes, starts)).cast(shown.schema["closes_at"]),
    )
    return served.join(_laws(log, day), on="request_id", how="left", maintain_order="left")


def _laws(log: Log, day: date) -> pl.DataFrame:
    """Return request_id, branch and epsilon of the requests of about this day; of two deliveries the later counts."""
    if not log.has("requests"):
        return pl.DataFrame(schema={"request_id": pl.String, **LAW})
    table = _of_day(log, day)
    names = table.collect_schema().names()
    columns = [pl.col(name).cast(dtype) if name in names else pl.lit(None, dtype).alias(name)
               for name, dtype in LAW.items()]  # fmt: skip
    found = table.select("request_id", "arrived_at", *columns).collect(engine="streaming")
    return (
        found.sort("request_id", "arrived_at").unique("request_id", keep="last", maintain_order=True).drop("arrived_at")
    )


def _of_day(log: Log, day: date) -> pl.LazyFrame:
    near = pl.col("shown_at").is_between(day_start(day) - AROUND, day_end(day) + AROUND, closed="left")
    return log.table("requests").filter(near)


def explored(served: pl.DataFrame) -> Floats:
    """Return each request's probability of being shuffled, shape (n,): 1 or 0 by its branch, else epsilon, or NaN.

    >>> explored(pl.DataFrame({"branch": ["shuffle", "model", None, None], "epsilon": [0.1, 0.1, 0.1, None]}))
    array([1. , 0. , 0.1, nan])
    """
    by_branch = {"shuffle": 1.0, "model": 0.0}
    told = pl.col("branch").replace_strict(by_branch, default=None, return_dtype=pl.Float64)
    share = pl.when(pl.col("epsilon").is_between(0.0, 1.0)).then("epsilon")
    return served.select(pl.coalesce(told, share).fill_null(float("nan"))).to_series().to_numpy()


def first_choices(served: pl.DataFrame, log: Log, day: date) -> tuple[Floats, pl.Series]:
    """Return how wide the choice of the first item was in a sample of the requests, and which items were candidates.

    The first, shape (k,), is `effective_share` under the logged policy of the requests whose law is known; the second
    names every item that one of them could have shown.
    """
    nothing = np.zeros(0), pl.Series("item_id", [], dtype=pl.String)
    if not log.has("requests"):
        return nothing
    sample = served.select("request_id").gather_every(max(1, -(-len(served) // MAX_LISTS)))
    known = knows_policy(_of_day(log, day).join(sample.lazy(), on="request_id", how="semi")).collect(engine="streaming")
    if not len(known):
        return nothing
    found = known.sort("request_id", "arrived_at").unique("request_id", keep="last", maintain_order=True)
    listed = (
        found.with_row_index("_request").select("_request", "candidates").explode("candidates").unnest("candidates")
    )
    scores = padded(listed["_request"].cast(pl.Int64).to_numpy(), listed["score"].cast(pl.Float64).to_numpy())[0]
    tau, epsilon = (found[name].fill_null(1.0).cast(pl.Float64).to_numpy() for name in ("tau", "epsilon"))
    return effective_share(scores, tau=tau, epsilon=epsilon), listed["item_id"].unique().sort()
