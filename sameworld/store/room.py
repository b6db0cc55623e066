"""Memory that a step must have: refused with the size needed, before the machine would kill it."""

from __future__ import annotations

import psutil

from sameworld.records import Refused

GB = 1e9


def refuse_beyond_memory(needed_bytes: float, *, memory_gb: float, what: str, remedy: str) -> None:
    """Raise Refused if work needs more memory than the spec allows, or than this machine has left.

    needed_bytes : the most that the work will hold at once; memory_gb : the spec's ``engine.memory_gb``

    >>> refuse_beyond_memory(6.5e9, memory_gb=16.0, what="training on 10 rows", remedy="read fewer days")
    >>> refuse_beyond_memory(6.5e9, memory_gb=4.0, what="training on 10 rows", remedy="read fewer days")
    Traceback (most recent call last):
        ...
    sameworld.records.Refused: training on 10 rows does not fit: got engine.memory_gb = 4; wanted at least 6.5 ...
    """
    needed = needed_bytes / GB
    if needed > memory_gb:
        raise Refused(what=f"{what} does not fit", got=f"engine.memory_gb = {memory_gb:g}",
                      wanted=f"at least {needed:.1f} GB", remedy=f"raise engine.memory_gb, or {remedy}")  # fmt: skip
    left = (psutil.virtual_memory().available + psutil.Process().memory_info().rss) / GB
    if needed > left:
        raise Refused(what=f"{what} does not fit", got=f"{left:.1f} GB of memory left on this machine",
                      wanted=f"at least {needed:.1f} GB", remedy=f"use a larger machine, or {remedy}")  # fmt: skip
