"""Reports to render: a full one, a blocked one, hostile ones."""

from __future__ import annotations

import math
from typing import Any

import pytest

SHIP = "s3://models/root/artifacts/ship/"
STEPS = ("ingest", "validate", "measure_delay", "label", "assemble", "train", "calibrate", "evaluate", "decide")
HOSTILE = (
    "<script>alert(1)</script>[x](javascript:alert(1))\"'><img src=x onerror=alert(1)>**bold** {{ 7*7 }} $\\frac{1}"
)


def about(value: float, half: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, **more}


def record(keys: str, *values: Any) -> dict[str, Any]:
    return dict(zip(keys.split(), values, strict=True))


def full_report() -> dict[str, Any]:
    return {
        "run": a_run(),
        "log": {
            "requests": sums(1_204_377, duplicates=311),
            "impressions": sums(
                12_043_770, duplicates=3_110, conflicts=12, quarantined={"null_key": 40, "arrived_before_shown": 7}
            ),
            "outcomes": sums(402_118, duplicates=1_204, conflicts=3, quarantined={"orphan": 981}),
        },
        "delay": delay(),
        "labels": labels(),
        "training_set": training_set(),
        "position": {"rows": 612_400, "examination": [about(1 / k**0.6, 0.02 * (k > 1)) for k in range(1, 11)]},
        "model": record(
            "version rounds features bundle backtest_bundle", "2026-03-19.4", 214, 41, SHIP + "9f3", SHIP + "52a"
        ),
        "metrics": metrics(),
        "slices": slices(),
        "policy_value": policy_value(),
        "skew": [skew("x_item_ctr", 0.0004), skew("x_user_age_days", 0.0), skew("x_price", 0.0121)],
        "staleness": [record("view joined_share q50_hours q90_hours q99_hours", "item_stats", 0.98, 12.0, 21.5, 60.0)],
        "drills": [
            drill(["x_ctr", "x_buys"], 0.081, 9_752, 0.7421, reasons={"timeout": 0.9, "not stated": 0.1}),
            drill([f"x_user_{n}" for n in range(6)], 0.0, 0, 0.7604, reasons={"cannot": "no request lacked them"}),
        ],
        "loop": loop(),
        "leak": leak(),
        "early": early(),
        "gap": gap(),
        "comparison": comparison(),
        "ab": {"cannot": "no A/B test has run for this surface yet"},
        "decision": {
            "outcome": "PROMOTE",
            "reasons": [
                "NDCG@10 is 0.004 above the champion's on 1,204,000 rows; the interval's low end is 0.002.",
                "Guardrails hold: the calibration ratio is 1.008, between 0.9 and 1.1.",
                "It beats both simple baselines, with intervals apart.",
            ],
            "bundle": "sha256:9f31c0aa52ab77e1d0c4",
        },
        "steps": [step(name, place) for place, name in enumerate(STEPS)],
    }


def labels() -> dict[str, Any]:
    kinds = {"click": {"positives": 310_200}, "purchase": {"positives": 40_820}}
    names = "rows closed open closed_share positives late_after_close by_kind"
    return record(names, 11_980_400, 9_120_210, 2_860_190, 0.76126, 351_020, 412, kinds)


def drill(outage: list[str], hit: float, requests: int, metric: float, *, reasons: dict[str, Any]) -> dict[str, Any]:
    compared = record("with without delta", about(metric, 0.004), about(0.7688, 0.003), about(metric - 0.7688, 0.002))
    ratios = record("with without delta", about(0.912, 0.03), about(1.008, 0.02), about(-0.096, 0.01))
    of_hit = {"calibration_ratio": about(0.973, 0.06) if requests else {"cannot": "no judged request lacked them"}}
    metrics = {"ndcg@10": compared, "calibration_ratio": ratios}
    names = "outage kind request_share requests reasons hit metrics"
    return record(names, outage, "group", hit, requests, reasons, of_hit, metrics)


def leak() -> dict[str, Any]:
    def moved(value: float, by: float, half: float, **more: float) -> dict[str, Any]:
        return {"value": value, **more, "inflation": about(by, half)}

    whole = moved(0.7811, -0.0313, 0.0041, honest=0.8124)
    found = {"normalised_entropy": whole, "auc": {"cannot": "AUC needs both classes"}}
    sources = {"outcomes": moved(0.7909, -0.0215, 0.0031), "item_stats": moved(0.8026, -0.0098, 0.002)}
    today = {"item_stats": moved(0.6124, -0.2, 0.01)}
    names = "metric by_source metrics snapshot from to rows late_outcomes late_retractions sentence"
    period = ("2026-03-09T06:00:00Z", "2026-03-16T00:00:00Z")
    sentence = "Had all been let in, it would have looked better than was known."
    rest = ("normalised_entropy", sources, found, today, *period, 1_204_000, 4_020, 17, sentence)
    return {**whole, **record(names, *rest)}


def early() -> dict[str, Any]:
    names = "rows requests positives from to completeness calibration_ratio normalised_entropy ndcg@10"
    period = ("2026-03-12T18:00:00Z", "2026-03-20T00:00:00Z")
    found = (about(1.01, 0.02), about(0.8312, 0.004), about(0.7712, 0.006))
    return record(names, 2_860_190, 286_019, 21_400, *period, 0.5821, *found)


def comparison() -> dict[str, Any]:
    deltas = {
        "ndcg@10": about(0.00412, 0.0019),
        "mrr": about(0.0031, 0.0034),
        "normalised_entropy": about(-0.0052, 0.0021),
        "calibration_ratio": about(0.004, 0.012),
        "ece": about(0.0007, 0.0003),
    }
    return record("champion rows deltas", "2026-03-12.2", 1_204_000, deltas)


def a_run() -> dict[str, Any]:
    spec = {
        "base": "baseline",
        "source": {"kind": "drop", "uri": "s3://logs/feed"},
        "label": record(
            "window_days gains target segments", 7, {"click": 1.0, "purchase": 5.0}, "purchase", ["x_surface"]
        ),
        "train": {"days": 60, "negative_rate": 1.0, "position": "estimated", "delay": "corrected"},
        "decide": {"metric": "ndcg@10", "margin": 0.002, "guardrails": {"calibration_ratio": [0.9, 1.1]}},
    }
    names = "id day cutoff spec fingerprint seconds code_version"
    cutoff = "2026-03-20T00:00:00Z"
    return record(names, "2026-03-19-baseline-7c1e", "2026-03-19", cutoff, spec, "7c1e55d02b9f4e", 431.2, "0.1.0")


def sums(
    rows_in: int, *, duplicates: int = 0, conflicts: int = 0, quarantined: dict[str, int] | None = None
) -> dict[str, Any]:
    lost = duplicates + conflicts + sum((quarantined or {}).values())
    names = "rows_in kept duplicates conflicts quarantined"
    return record(names, rows_in, rows_in - lost, duplicates, conflicts, quarantined or {})


def delay() -> dict[str, Any]:
    known = {"1": about(0.312, 0.011), "3": about(0.544, 0.013), "7": about(0.871, 0.009)}
    lags = {"impressions": {"q50": 0.21, "q90": 1.4, "q99": 3.9}, "outcomes": {"q50": 2.1, "q90": 18.4, "q99": 61.3}}
    curves = [
        {"kind": "purchase", "segment": s, "window_days": 7, "rate": about(0.034, 0.002), "completeness": known}
        for s in ("app", "web")
    ]
    shift = {"alarm": False, "reason": "the newest days' curve lies inside the band of the curve in use"}
    return record("landing_lag_hours curves shift", lags, curves, shift)


def training_set() -> dict[str, Any]:
    ends = {"train": "2026-03-07T00:00:00Z", "calibrate": "2026-03-09T00:00:00Z"}
    names = "rows requests from to features served_share replayed_share cutoff"
    return record(names, 9_120_210, 912_021, "2026-01-19T00:00:00Z", "2026-03-12T00:00:00Z", 41, 0.982, 0.018, ends)


def metrics() -> dict[str, Any]:
    shapes = {
        "ndcg@10": (0.7681, 0.0031),
        "mrr": (0.5127, 0.0042),
        "normalised_entropy": (0.8124, 0.0038),
        "calibration_ratio": (1.008, 0.017),
        "ece": (0.0131, 0.0012),
        "auc": (0.7812, 0.0029),
        "coverage": (0.612, 0.004),
        "exposure_gini": (0.581, 0.006),
    }
    return {
        name: about(
            value, half, rows=1_204_000, popular=about(value * 0.93, half * 1.1), logged=about(value * 0.97, half)
        )
        for name, (value, half) in shapes.items()
    }


def slices() -> list[dict[str, Any]]:
    rows = [
        ("surface", "app", 802_100, 0.771),
        ("surface", "web", 401_900, 0.762),
        ("tenure", "first week", 88_210, 0.741),
        ("tenure", "later", 1_115_790, 0.770),
        ("activity", "heavy", 301_200, 0.779),
        ("activity", "light", 902_800, 0.764),
    ]
    return [
        record("slice value rows", s, v, n)
        | {"metrics": {"ndcg@10": about(m, 2.4 / math.sqrt(n)), "calibration_ratio": about(1.01, 9 / math.sqrt(n))}}
        for s, v, n, m in rows
    ]


def policy_value() -> dict[str, Any]:
    names = "method from to requests left_out_share logged lift ess clipped_mass check"
    period = ("2026-03-09T06:00:00Z", "2026-03-12T00:00:00Z")
    logged, lift, check = about(0.4021, 0.0032), about(0.0192, 0.0077), about(0.4187, 0.0172, method="SN-RIPS")
    rest = record(names, "IIPS-DR", *period, 120_400, 0.0213, logged, lift, 18_220.4, 0.0, check)
    return about(0.4213, 0.0081, **rest)


def skew(feature: str, mismatch: float) -> dict[str, Any]:
    names = "feature view compared mismatch_share missing_share extra_share stale_share"
    return record(names, feature, "item_stats", 1_204_000, mismatch, 0.0021, 0.0, mismatch / 2)


def loop() -> dict[str, Any]:
    flat = about(0.0, 0.0001)
    explored, own = ({"value": value, "trend": flat} for value in (0.0202, 0.9798))
    support = {"value": 0.412, "trend": about(-0.0004, 0.0007)}
    spread = {"value": 0.581, "trend": about(0.0003, 0.0006)}
    name = "day impressions explored_share support concentration"
    days = [record(name, f"2026-03-{d:02d}", 620_000, 0.02, 0.41, 0.58)
            for d in range(6, 20)]  # fmt: skip
    names = "rows requests from to explored_share own_choice_share support concentration alarm reason by_day"
    period = (9_120_210, 912_021, "2026-01-19T00:00:00Z", "2026-03-20T00:00:00Z")
    watched = record(names, *period, explored, own, support, spread, False, "neither trend is clear of 0", days)
    cost = about(0.0041, 0.0019, gain=0.4021, requests=120_400, shuffled=2_408)
    return watched | {"exploration_cost": cost, "epsilon_enough": 0.0126, "budget": budget()}


def budget() -> dict[str, Any]:
    never = {"cannot": "some of the model's choices would never be shown"}
    shares = [0.001 * 10 ** (place / 4) for place in range(13)]
    points = [{"epsilon": 0.0, "half_width": never}, *({"epsilon": e, "half_width": 0.006 / e**0.5} for e in shares)]
    return record("precision epsilon half_width requests sampled curve", 0.05, 0.02, 0.042, 120_400, 2_000, points)


def gap() -> dict[str, Any]:
    terms = [
        about(-0.0083, 0.0021, name="labels"),
        about(-0.0031, 0.0012, name="features"),
        about(0.0007, 0.0029, name="exposure_and_drift"),
    ]
    return {"rows": 804_000, "offline": about(0.7712, 0.003), "production": about(0.7605, 0.003), "terms": terms}


def step(name: str, place: int) -> dict[str, Any]:
    prints = f"{place}c8a91f2b7d3e{place}0"
    cost = (1.7**place, place % 3 == 1, 10 ** (7 - place // 2), 310.4 + 120 * place)
    return record("name uri fingerprint seconds reused rows peak_mb", name, f"{SHIP}{prints}", prints, *cost)


def full_plots() -> dict[str, Any]:
    ages = [6.0 * k for k in range(29)]
    points = [(0.004 * 1.45**k, 0.0041 * 1.44**k, 120_400) for k in range(10)]
    days = [f"2026-03-{d:02d}" for d in range(1, 20)]
    return {
        "reliability": [
            {"predicted": p, "observed": o, "low": o * 0.93, "high": o * 1.07, "rows": n} for p, o, n in points
        ],
        "delay_curves": [
            curve(kind, segment, ages, pace)
            for kind in ("click", "purchase")
            for segment, pace in (("app", 30.0), ("web", 60.0))
        ],
        "propensity_histogram": {
            "edges": [10 ** (-4 + k / 4) for k in range(17)],
            "counts": [3, 11, 40, 90, 230, 700, 1_900, 4_100, 9_000, 14_000, 17_500, 21_000, 16_000, 8_000, 3_100, 900],
        },
        "null_rates": {
            "features": ["x_item_ctr", "x_price", "x_user_age_days", "x_session_len"],
            "days": days,
            "rates": [[0.02 + 0.3 * (k == 2 and d > 13) + 0.01 * (k * d % 5) for d in range(19)] for k in range(4)],
        },
        "labels_by_day": [
            record(
                "day closed open positives",
                day,
                620_000 * (d < 12),
                605_000 * (d > 11),
                21_000 - 2_400 * max(0, d - 11),
            )
            for d, day in enumerate(days)
        ],
        "findings": [
            {"suite": "landed", "level": "WARN", "sentence": "only 3 like weekdays to compare the volume with, need 4"},
            {"suite": "features", "level": "WARN", "sentence": "x_user_age_days: 32.1 % null, usually 2.4 %"},
        ],
        "ignored_columns": ["impressions.debug_blob", "requests.client_build"],
    }


def curve(kind: str, segment: str, ages: list[float], pace: float) -> dict[str, Any]:
    known = [1 - math.exp(-age / pace) for age in ages]
    low, high = [max(0.0, k - 0.03) for k in known], [min(1.0, k + 0.03) for k in known]
    return record("kind segment ages_hours known low high", kind, segment, ages, known, low, high)


def blocked_report() -> dict[str, Any]:
    reason = "the gate on the landed day stopped the run: 71.2 % of the requests usual for a Thursday, need 95 %"
    kept = {
        "run": a_run(),
        "log": {"requests": sums(804_120)},
        "decision": {"outcome": "HOLD", "reasons": [reason], "bundle": {"cannot": reason}},
    }
    return {name: {"cannot": reason} for name in full_report()} | kept


def poisoned(value: Any, text: str = HOSTILE) -> Any:
    """Put the text into every name, reason and id that a report holds; numbers stay."""
    if isinstance(value, dict):
        return {key: poisoned(inner, text) for key, inner in value.items()} | {text: text}
    if isinstance(value, list):
        return [poisoned(inner, text) for inner in value]
    return text if isinstance(value, str) else value


@pytest.fixture
def report() -> dict[str, Any]:
    return full_report()


@pytest.fixture
def plots() -> dict[str, Any]:
    return full_plots()


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture(scope="session")
def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    blocking = [{"suite": "landed", "level": "BLOCK", "sentence": "71.2 % of the usual requests"}]
    return {
        "full": (full_report(), full_plots()),
        "blocked": (blocked_report(), {"findings": blocking}),
        "hostile": (poisoned(full_report()), poisoned(full_plots())),
        "hostile reasons": (
            {name: {"cannot": HOSTILE} for name in full_report()},
            {"reliability": {"cannot": HOSTILE}},
        ),
        "empty": ({}, {}),
    }
