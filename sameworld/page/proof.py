"""The proof as one self-contained HTML page: for each failure, broken beside fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from sameworld.page.proof_plots import said_and_true
from sameworld.page.render import _environment

TITLES = {"loop": "The loop", "delay": "The delay", "nulls": "The nulls", "all": "All three at once"}
NAMES = {
    "auc": "AUC on the shop’s own log",
    "normalised_entropy": "normalised entropy (less is better)",
    "true ndcg@10": "true NDCG@10",
}


def render_proof(document: Mapping[str, Any]) -> str:
    """Return the page of what ``sameworld prove --json`` prints: no script, nothing fetched, every text escaped."""
    failures = [_shown(failure) for failure in document["failures"]]
    claims = [claim for failure in document["failures"] for claim in failure["claims"]]
    return (
        _environment()
        .get_template("proof.html.j2")
        .render(document=document, failures=failures, held=sum(c["holds"] is True for c in claims), claims=len(claims))
    )


def _shown(failure: Mapping[str, Any]) -> dict[str, Any]:
    days, offline, truth = failure["days"], failure["metric"]["offline"], failure["metric"]["truth"]
    ends = [point["mean"] for arm in days.values() for points in arm.values() for point in points]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.06 * ((high - low) or 1.0)
    figures = {
        who: Markup(  # noqa: S704 - drawn by plots, which escape every text
            said_and_true(
                days[who],
                label=f"{failure['name']}, {who}: offline and truth by day",
                span=(low - room, high + room),
                last_day=failure["world"]["days"],
            )
        )
        for who in ("broken", "fixed")
    }
    same = offline == truth
    says = f"offline and truth: {_name(offline)}" if same else f"offline: {_name(offline)}; truth: {_name(truth)}"
    return {**failure, "title": TITLES.get(failure["name"], failure["name"]), "figures": figures, "measured": says}


def _name(metric: str) -> str:
    return NAMES.get(metric, metric)
