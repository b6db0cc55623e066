"""What a benchmark finds, and the page that keeps it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Claim:
    """One figure beside what it is compared with, and whether the two agree as claimed."""

    what: str
    found: str
    reference: str
    holds: bool


def finding(*, seed: int | None, claims: Sequence[Claim], figures: dict[str, Any]) -> dict[str, Any]:
    """Return what every benchmark's ``run`` returns: JSON-ready figures; seed None where nothing is drawn."""
    return {"seed": seed, "claims": list(claims), "figures": figures}


def commit() -> str:
    """Return the commit that is checked out, and whether files were changed since; a reason where there is no git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return f"{head}, with changes" if _git("status", "--porcelain", "--", "sameworld", "tasks") else head
    except (OSError, subprocess.CalledProcessError):
        return "not under version control"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def table(claims: Sequence[Claim]) -> str:
    """Return the claims as a Markdown table.

    >>> print(table([Claim("NDCG@1", "0.51", "0.51", holds=True)]))
    | what | found | reference | agrees |
    |---|---|---|---|
    | NDCG@1 | 0.51 | 0.51 | yes |
    """
    lines = [f"| {c.what} | {c.found} | {c.reference} | {'yes' if c.holds else 'NO'} |" for c in claims]
    return "\n".join(["| what | found | reference | agrees |", "|---|---|---|---|", *lines])


def page(name: str, explained: str, found: dict[str, Any], *, small: bool, version: str) -> str:
    """Return a benchmark's page: what it does, what it found, with seed and commit."""
    size = "small" if small else "full"
    again = f"`python -m benchmarks {name} --write{'' if small else ' --full'}`"
    seed = "none: nothing is drawn" if found["seed"] is None else found["seed"]
    about = f"Size: {size}. Seed: {seed}. Commit: {version}. Again: {again}."
    return f"# {name.replace('_', ' ')}\n\n{explained.strip()}\n\n{table(found['claims'])}\n\n{about}\n"


def interval(record: dict[str, float], digits: int = 4) -> str:
    """Return an estimate in words.

    >>> interval({"value": 0.5, "low": 0.25, "high": 1.0}, 2)
    '0.50 [0.25, 1.00]'
    """
    return "{value:.{d}f} [{low:.{d}f}, {high:.{d}f}]".format(**record, d=digits)
