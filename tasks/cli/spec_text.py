"""The text of a spec for a drop, with comments that say where each value comes from."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping

from tasks.cli.drop_look import DropLook, FeatureLook
from tasks.cli.spec_advice import Window, missing, segment_for, target_of, window_for


def spec_text(look: DropLook) -> str:
    """Return a commented spec as TOML; any name of the drop is written so that it reads back as it is."""
    hours = {kind: outcomes.hours for kind, outcomes in look.kinds.items()}
    log_days = (look.last - look.first).days + 1
    window = window_for(hours, log_days=log_days, lag_hours=look.lag_hours)
    parts = (_head(look), _source(look), _label(look, window), _features(look), _train(window), _judged(look, window))
    return "\n".join(line for part in parts for line in (*part, ""))


def quoted(text: str) -> str:
    r"""Return a TOML basic string; control characters and quotes are escaped.

    >>> print(quoted('a "b"\n'))
    "a \"b\"\n"
    """
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _head(look: DropLook) -> list[str]:
    absent = missing(look)
    lines = [
        f"# Written by sameworld init after a look at the newest {look.days} of the days {look.first} to {look.last}.",
        "# What is left out has its default; experiments/baseline.toml documents every key.",
        "#",
        f"# Tables: {', '.join(look.tables)}",
    ]
    return [*lines, *(f"# Missing: {name}: {words}" for name, words in absent.items())]


def _source(look: DropLook) -> list[str]:
    return ["[source]", 'kind = "drop"', f"uri = {quoted(look.uri)}"]


def _label(look: DropLook, window: Window) -> list[str]:
    target = target_of(look.kinds)
    rule = "the only kind" if len(look.kinds) == 1 else "the rarest kind"
    # an inline table takes no line breaks, so the counts stand above it
    counts = [f"# {quoted(kind)}: {one.impressions:,} impressions had one" for kind, one in look.kinds.items()]
    lines = ["[label]", *_window(look, window), *counts]
    gains = ", ".join(f"{quoted(kind)} = 1.0" for kind in look.kinds)
    lines += [
        f"gains = {{ {gains} }}  # what an outcome is worth to the ranker",
        f"target = {quoted(target)}  # {rule}",
    ]
    return [*lines, *_segments(look, target)]


def _window(look: DropLook, window: Window) -> list[str]:
    share = f"{100 * window.covered:.3g} %"
    lines = [
        f"# {share} of the outcomes of the slowest kind seen came within this; their rows landed within "
        f"{look.lag_hours:.3g} hours (99 % of them)"
    ]
    if not window.fits:
        lines.append("# The log is too short for a back-test yet: it must be about twice this window and five days.")
    elif window.days < window.slowest:
        lines.append(
            f"# {window.slowest:.3g} days would cover 99 %, once the log is long enough for a back-test of it."
        )
    return [*lines, f"window_days = {window.days:.7g}"]


def _segments(look: DropLook, target: str) -> list[str]:
    outcomes = look.kinds[target]
    chosen = segment_for(outcomes)
    if chosen is not None:
        medians = {value: hours[len(hours) // 2] for value, hours in outcomes.by_segment[chosen].items() if len(hours)}
        words = ", ".join(f"{quoted(value)} {hours:.3g}" for value, hours in medians.items())
        return [f"# median hours to the target: {words}", f"segments = [{quoted(chosen)}]"]
    could = [quoted(name) for name in outcomes.by_segment]
    if not could:
        return ["# segments = []  # no column of few values"]
    return [f"# segments = [{', '.join(could)}]  # of few values; the delays of their values do not differ clearly"]


def _features(look: DropLook) -> list[str]:
    lines = ["[features]"]
    if look.features:
        lines += ["include = [", *(_feature(one) for one in look.features), "]"]
    views = {view: list(columns) for view, columns in look.views.items()}
    if views:
        table = ", ".join(f"{quoted(view)} = {_list(columns)}" for view, columns in views.items())
        lines += [f"# view {quoted(view)}: {_typed(columns)}" for view, columns in look.views.items()]
        lines.append(f"{'# ' if look.features else ''}views = {{ {table} }}")
    return lines


def _feature(one: FeatureLook) -> str:
    kind = "category" if one.kind == "string" else one.kind
    nulls = f", {100 * one.null_share:.2g} % null" if one.null_share else ""
    about = f"# {kind}, {one.values:,} values{nulls}"
    # a name is a pattern here: what means more than itself is escaped
    name = quoted(glob.escape(one.name))
    return f"    # {name},  {about}; left out: {one.doubt}" if one.doubt else f"    {name},  {about}"


def _typed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(name)} {'category' if kind == 'string' else kind}" for name, kind in columns.items())


def _list(names: list[str]) -> str:
    return f"[{', '.join(quoted(name) for name in names)}]"


def _train(window: Window) -> list[str]:
    return [
        "[train]",
        f"holdout_days = {window.holdout_days:.3g}  # the newest closed days: to stop on and to calibrate",
    ]


def _judged(look: DropLook, window: Window) -> list[str]:
    lines = ["[backtest]", f"days = {window.backtest_days}"]
    if not look.lists:
        lines += ["", "[decide]", 'metric = "normalised_entropy"  # there are no lists whose order could be judged']
    return lines
