"""What the leak meter is held to: the naive evaluation by event time, which only a world's own truth can give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binom, t

from benchmarks.evidence import Claim

World = Mapping[str, Any]


def leak_claims(of: str, worlds: Sequence[World], *, at_once: bool) -> list[Claim]:
    """Compare the meter with the naive evaluation, world by world.

    worlds : each with ``leak`` (the step's record) and ``by_event`` (normalised entropy of the same rows with every
    purchase that had happened by the meter's moment, from the world itself)
    at_once : whether outcomes land within minutes, so that in some of the worlds nothing was late
    """
    known = [one for one in worlds if "value" in one["leak"]["inflation"] and "value" in one["by_event"]]
    off = np.array([_told(one) - one["by_event"]["value"] for one in known])
    bias, reach = float(off.mean()), float(t.ppf(0.975, max(len(off) - 1, 1)) * off.std(ddof=1) / np.sqrt(len(off)))
    moved = float(np.mean([one["leak"]["inflation"]["value"] for one in known]))
    inside, least = sum(map(_inside, known)), max(int(binom.ppf(0.0005, len(known), 0.95)), 1)
    naive = f"{np.mean([one['by_event']['value'] for one in known]):.4f} by event time, {moved:+.4f} of it let in"
    return [
        Claim(f"{of}: NE of what had arrived plus the leak meter's, mean difference to the naive NE by event time",
              f"{bias:+.4f} ± {reach:.4f}", naive, abs(bias) <= max(reach, 0.001)),
        Claim(f"{of}: worlds in which that naive NE lies in the leak meter's interval", str(inside),
              f"at least {least}", inside >= least and len(known) == len(worlds)),
        *(_exactly_0(of, worlds) if at_once else []),
    ]  # fmt: skip


def _exactly_0(of: str, worlds: Sequence[World]) -> list[Claim]:
    """Claim that the inflation is exactly 0 where nothing was late, and nearly that where hardly anything was."""
    punctual = [one["leak"]["inflation"] for one in worlds if not _late(one["leak"])]
    nothing = sum(set(one.values()) == {0.0} for one in punctual)
    rest = [one["leak"]["inflation"]["value"] for one in worlds if _late(one["leak"])]
    most, count = float(np.abs(rest).max(initial=0.0)), max((_late(one["leak"]) for one in worlds), default=0)
    return [
        Claim(f"{of}: worlds in which the leak meter's inflation is exactly 0", str(nothing),
              f"{len(punctual)} in which nothing was late", 0 < nothing == len(punctual)),
        Claim(f"{of}: largest inflation in the others, of {count} late outcomes at most", f"{most:.4f}", "below 0.01",
              most < 0.01),
    ]  # fmt: skip


def _late(leak: World) -> int:
    return int(leak["late_outcomes"] + leak["late_retractions"])


def _told(world: World) -> float:
    return float(world["leak"]["honest"] + world["leak"]["inflation"]["value"])


def _inside(world: World) -> bool:
    honest, moved = world["leak"]["honest"], world["leak"]["inflation"]
    return bool(honest + moved["low"] <= world["by_event"]["value"] <= honest + moved["high"])
