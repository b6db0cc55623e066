"""Figures as inline SVG text: data in, one ``<svg>`` element out, the same bytes for the same data.

Colours are CSS variables of the page, so that one figure serves light and dark. Text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import pairwise
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sameworld.page import words

# Stand-ins that Matplotlib can parse; each becomes the page's variable of that name.
INK, MUTED, LINE, ACCENT, SOFT = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
SERIES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", SOFT: "soft"} | {
    stand_in: f"series-{place}" for place, stand_in in enumerate(SERIES, start=1)
}
MOST_FEATURES = 60  # of a heat map that can still be read
_DASHES = ("-", (0, (5, 1.6)), (0, (2, 1.4)), (0, (6, 1.6, 1.5, 1.6)), (0, (8, 2)), (0, (1, 1.2)))
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def reliability(points: Sequence[Mapping[str, Any]]) -> str:
    """Draw observed rates with Wilson intervals against predicted ones, beside the line of perfect calibration.

    points : predicted, observed, low, high, rows for each bin. Returns "" when there are none.
    """
    if not points:
        return ""
    top = max(max(float(p["high"]), float(p["predicted"])) for p in points) * 1.05 or 1.0
    label = f"Reliability: observed against predicted rate in {len(points)} bins, {words.number(_rows(points))} rows"
    with _figure("reliability", label, height=236) as (axes, out):
        axes.plot([0, top], [0, top], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        _whiskers(axes, [p["predicted"] for p in points], [(p["low"], p["observed"], p["high"]) for p in points])
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="predicted", ylabel="observed")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(_PERCENT)
    return out[0]


def delay_curves(curves: Sequence[Mapping[str, Any]], *, kind: str) -> str:
    """Draw how much of what will come is known by age, one line a segment, for one kind of outcome.

    curves : kind, segment, ages_hours, known and optionally low, high. Beyond six segments lines are grey and unnamed.
    """
    mine = [curve for curve in curves if str(curve.get("kind")) == kind and curve.get("ages_hours")]
    if not mine:
        return ""
    longest = max(float(age) for curve in mine for age in curve["ages_hours"])
    unit, size = ("days", 24.0) if longest > 48 else ("hours", 1.0)
    label = f"Share of {kind} outcomes known by age, {len(mine)} segments"
    with _figure(f"delay {kind}", label, height=236) as (axes, out):
        for place, curve in enumerate(mine):
            _curve(axes, curve, place=place, size=size)
        axes.set(xlim=(0, longest / size), ylim=(0, 1.02), xlabel=f"{unit} since shown", ylabel="known so far")
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.legend(loc="lower right")
    return out[0]


def examination(estimates: Sequence[Any]) -> str:
    """Draw how often a position is looked at, relative to the top, with intervals; unknown ones are left out."""
    known = [(place, e) for place, e in enumerate(estimates, start=1) if words.is_estimate(e)]
    if not known:
        return ""
    with _figure("examination", f"Examination by position, {len(known)} positions", height=216) as (axes, out):
        places = [place for place, _ in known]
        axes.plot(places, [e["value"] for _, e in known], color=ACCENT, linewidth=1.2, alpha=0.5)
        _whiskers(axes, places, [(e["low"], e["value"], e["high"]) for _, e in known])
        axes.set(ylim=(0, None), xlim=(0.5, places[-1] + 0.5), xlabel="position", ylabel="looked at (top = 1)")
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    return out[0]


def propensity_histogram(histogram: Mapping[str, Any]) -> str:
    """Draw how probable the logged choices were; the axis is logarithmic when they span more than two decades."""
    edges = [float(edge) for edge in histogram.get("edges", ())]
    counts = [float(count) for count in histogram.get("counts", ())]
    if len(edges) != len(counts) + 1 or not counts:
        return ""
    label = f"Histogram of logged propensities, {words.number(int(sum(counts)))} impressions"
    with _figure("propensities", label, height=216) as (axes, out):
        widths = [right - left for left, right in pairwise(edges)]
        axes.bar(edges[:-1], counts, widths, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
        if edges[0] > 0 and edges[-1] / edges[0] > 100:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.tick_params(which="minor", length=0)
        axes.set(xlim=(edges[0], edges[-1]), xlabel="propensity", ylabel="impressions")
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(_COUNTS)
    return out[0]


def labels_by_day(days: Sequence[Mapping[str, Any]]) -> str:
    """Draw the rows of each shown day, closed and open, and below them the share that is positive so far."""
    if not days:
        return ""
    label = f"Labels by day, {len(days)} days: closed and open rows, and the share positive so far"
    with _figure("labels by day", label, height=236, panels=(3, 2)) as ((top, below), out):
        at = list(range(len(days)))
        closed, still_open = ([float(day.get(part) or 0) for day in days] for part in ("closed", "open"))
        top.bar(at, closed, 0.78, color=ACCENT, alpha=0.85, linewidth=0, label="closed")
        top.bar(at, still_open, 0.78, bottom=closed, color=ACCENT, alpha=0.3, linewidth=0, label="open")
        top.yaxis.set_major_locator(MaxNLocator(4))
        top.yaxis.set_major_formatter(_COUNTS)
        top.set_ylabel("rows")
        top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        sums = [c + o for c, o in zip(closed, still_open, strict=True)]
        rates = [float(day.get("positives") or 0) / rows if rows else 0.0 for day, rows in zip(days, sums, strict=True)]
        below.bar(at, rates, 0.78, color=MUTED, alpha=0.6, linewidth=0)
        below.yaxis.set_major_formatter(_PERCENT)
        below.yaxis.set_major_locator(MaxNLocator(3))
        below.set(ylabel="positive", xlim=(-0.6, len(days) - 0.4))
        _name_days(below, [str(day["day"]) for day in days], most=5)
        for axes in (top, below):
            axes.grid(visible=False, axis="x")
    return out[0]


def null_rates(table: Mapping[str, Any]) -> str:
    """Draw the share of nulls by feature and day as a heat map: the fuller the colour, the more is missing.

    table : features, days, and rates[feature][day]; a rate of None leaves its cell empty. Of very many features those
        that were missing most are drawn.
    """
    features, days, rates = (list(table.get(part, ())) for part in ("features", "days", "rates"))
    if not features or not days:
        return ""
    label = f"Null rates of {len(features)} features on {len(days)} days"
    worst = sorted(range(len(features)), key=lambda row: -max((rate or 0.0 for rate in rates[row]), default=0.0))
    drawn = sorted(worst[:MOST_FEATURES])
    if len(drawn) < len(features):
        label = f"Null rates of the {len(drawn)} of {len(features)} features missing most, on {len(days)} days"
    features, rates = [features[row] for row in drawn], [rates[row] for row in drawn]
    with _figure("null rates", label, width=760, height=64 + 20 * len(features)) as (axes, out):
        for row, by_day in enumerate(rates):
            for column, rate in enumerate(by_day):
                axes.add_patch(_cell(column, row, rate))
            newest = "" if not by_day or by_day[-1] is None else words.share(by_day[-1])
            axes.text(len(days) - 0.35, row, newest, va="center", fontsize=9.5, color=INK)
        axes.set(xlim=(-0.5, len(days) - 0.5), ylim=(len(features) - 0.5, -0.5))
        axes.set_yticks(range(len(features)), [_clip(name) for name in features])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        _name_days(axes, [str(day) for day in days], most=10)
    return out[0]


def _count(value: float, _place: object = None) -> str:
    size, unit = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e3 else (1.0, "")
    return f"{value / size:g}{unit}"


_COUNTS = FuncFormatter(_count)
_PERCENT = FuncFormatter(lambda value, _: f"{round(value * 100, 6):g} %")


@contextmanager
def _figure(
    name: str, label: str, *, width: int = 340, height: int, panels: tuple[int, ...] = (1,)
) -> Iterator[tuple[Any, list[str]]]:
    """Yield the axes (one, or one a panel) and a list that holds the SVG text once the block has been left."""
    out: list[str] = []
    with rc_context({**_STYLE, "svg.hashsalt": f"sameworld {name}"}):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(len(panels), 1, sharex=True, gridspec_kw={"height_ratios": panels}, squeeze=False)[:, 0]
        yield (axes[0] if len(panels) == 1 else tuple(axes)), out
        sink = io.StringIO()
        with warnings.catch_warnings():
            # Names in scripts that the measuring font lacks are drawn by the reader's own fonts.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(sink, format="svg", metadata={"Date": None})
    out.append(_inline(sink.getvalue(), label=label, width=width))


def _inline(document: str, *, label: str, width: int) -> str:
    """Cut an SVG document down to one element that a page can hold: no prologue, no metadata, no unused ids."""
    body = document[document.index(">", document.index("<svg")) + 1 : document.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.S)
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', body))
    kept = {name for pair in used for name in pair if name}
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in kept else "", body)
    body = re.sub(r"(fill|stroke): (#0a0b\d\d)", lambda found: f"{found[1]}: var(--{_VARIABLES[found[2]]})", body)
    body = re.sub(r"font-family: [^;\"]*;?|'DejaVu Sans'[^;\"]*", "", body)
    box = re.search(r'viewBox="([^"]+)"', document)
    said = escape(label, quote=True)
    shape = "wide" if width > 400 else "plot"
    opening = f'<svg class="{shape}" role="img" aria-label="{said}" viewBox="{box[1] if box else ""}"'
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"{opening} {names}><title>{said}</title>{re.sub(chr(10) + ' *', chr(10), body).strip()}</svg>"


def _whiskers(axes: Any, at: Sequence[float], intervals: Sequence[tuple[float, float, float]]) -> None:
    axes.vlines(at, [low for low, _, _ in intervals], [high for _, _, high in intervals], color=ACCENT, linewidth=1.4)
    axes.plot(at, [value for _, value, _ in intervals], "o", color=ACCENT, markersize=5, markeredgewidth=0)


def _curve(axes: Any, curve: Mapping[str, Any], *, place: int, size: float) -> None:
    named = place < len(SERIES)
    color = SERIES[place] if named else MUTED
    ages = [float(age) / size for age in curve["ages_hours"]]
    if len(curve.get("low") or ()) == len(ages) == len(curve.get("high") or ()):
        axes.fill_between(ages, curve["low"], curve["high"], color=color, alpha=0.14, linewidth=0)
    name = _clip(curve["segment"]) if named else "_unnamed"
    axes.plot(ages, curve["known"], color=color, linewidth=1.7, linestyle=_DASHES[place % len(_DASHES)], label=name)


def _cell(column: int, row: int, rate: float | None) -> Rectangle:
    fill = "none" if rate is None else ACCENT
    # A little colour even at 0, so that a cell without nulls differs from one without rows.
    strength = 0.06 + 0.94 * min(max(float(rate or 0.0), 0.0), 1.0) ** 0.7
    return Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, facecolor=fill, alpha=strength, linewidth=0)


def _name_days(axes: Any, days: Sequence[str], *, most: int) -> None:
    step = -(-len(days) // most)
    at = list(range(len(days) - 1, -1, -step))[::-1]
    axes.set_xticks(at, [days[place][5:] if len(days[place]) == 10 else _clip(days[place]) for place in at])


def _clip(name: object, most: int = 28) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _rows(points: Sequence[Mapping[str, Any]]) -> int:
    return int(sum(point.get("rows", 0) for point in points))
