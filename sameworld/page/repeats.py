"""Repeats on the page: what of the training set says a thing twice, and what that does to the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sameworld.page import view, words

RULES = {
    "weigh": "Copies of a request share the weight of one, and a bot’s requests weigh as many as the limit allows",
    "leave_out": "Only the last copy of a request counts, and bots do not",
    "keep": "All of them count in full (repeats.rule is keep)",
}


def sentence(repeats: Mapping[str, Any]) -> str:
    """Return what was found and what became of it, in words."""
    found = (
        f"{words.number(repeats['clusters'])} lists were shown again to the same user within minutes, "
        f"{words.share(repeats['clustered_share'])} of the requests; {words.share(repeats['contradictory_share'])} of "
        f"these contradict themselves: an item is wanted in one copy and not in another. "
        f"Bots: {words.number(repeats['bots'])}, with {words.share(repeats['bot_share'])} of the rows."
    )
    rule = RULES.get(str(repeats["rule"]), str(repeats["rule"]))
    rates = repeats["base_rate"]
    return (
        f"{found} {rule}: {words.number(repeats['rows'])} rows weigh {words.number(repeats['effective_rows'])}, and "
        f"the target’s share is {words.share(rates['by_rule'])} instead of {words.share(rates['as_logged'])}."
    )


def effect(repeats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one record a metric: over all judged rows, and without what repeats and bots."""
    metrics = view.mapping(view.mapping(repeats.get("effect")).get("metrics"))
    return [{"metric": words.humanise(name), **dict(both)} for name, both in metrics.items()]


def rest(repeats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts that the sentence leaves out."""
    return {name: value for name, value in repeats.items() if name not in ("rule", "effect", "base_rate")}
