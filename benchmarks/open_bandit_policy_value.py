"""Off-policy values on real logs, against a policy whose value is known: the product on the Open Bandit sample.

A shop showed items by Thompson sampling (bts) and, beside it, uniformly at random. One day of the product's flow
estimates the uniform policy's click rate from the bts log by inverse propensities. The references are an independent
estimate from the same rows, and the uniform policy's own log. The sample is small (38 to 69 clicks a
log), so the intervals are wide; what is claimed is that the estimates are the reference's and that the intervals hold
what the uniform policy really earned.
"""

from __future__ import annotations

import tempfile
from datetime import date
from typing import Any

from benchmarks.evidence import PROJECT, Claim, finding, interval
from sameworld.spec import load_spec
from sameworld.store.artifacts import Store
from tasks.run import run_day

DAY = date(2019, 11, 30)
# campaign: value and interval, effective sample size, largest weight (None: no reference)
REFERENCES: dict[str, tuple[dict[str, float], int, int | None]] = {
    "men": ({"value": 0.0030, "low": 0.0016, "high": 0.0047}, 656, None),
    "all": ({"value": 0.0024, "low": 0.0010, "high": 0.0043}, 340, 278),
}
END_TOLERANCE = 3e-4  # an end of a bootstrap interval moves by that much from seed to seed


def run(small: bool) -> dict[str, Any]:
    """Check the men's campaign with a few trees, or both campaigns with the shipped spec."""
    claims, figures = [], {}
    for campaign in ["men"] if small else list(REFERENCES):
        [check] = checked(campaign, small=small)
        figures[campaign] = check
        claims += _claims(campaign, check)
    return finding(seed=7, claims=claims, figures=figures)


def checked(campaign: str, *, small: bool) -> list[dict[str, Any]]:
    """Run the product for the sample's last day, up to the evaluation, and return the report's checks."""
    changes = [f'source.campaign="{campaign}"', *(["train.max_rounds=5"] if small else [])]
    spec = load_spec(PROJECT / "experiments" / "open_bandit.toml", changes=changes)
    with tempfile.TemporaryDirectory() as root:
        report = run_day(Store(root), spec, DAY, only="evaluate").report
    checks: list[dict[str, Any]] = report["policy_value"]["checks"]
    return checks


def _claims(campaign: str, check: dict[str, Any]) -> list[Claim]:
    reference, ess, largest = REFERENCES[campaign]
    estimate, observed, about = check["estimate"], check["observed"], f"{campaign}: uniform policy from the bts log"
    same = round(estimate["value"], 4) == reference["value"]
    near = all(abs(estimate[end] - reference[end]) <= END_TOLERANCE for end in ("low", "high"))
    claims = [
        Claim(about, interval(estimate), interval(reference), same and near),
        Claim(f"{campaign}: effective sample size", f"{check['ess']:.0f}", f"{ess}", round(check["ess"]) == ess),
    ]
    if largest is not None:
        found = check["largest_weight"]
        claims.append(Claim(f"{campaign}: largest weight", f"{found:.0f}", f"{largest}", round(found) == largest))
    inside = estimate["low"] <= observed["value"] <= estimate["high"]
    words = f"{campaign}: what the uniform policy's own log shows lies in the interval"
    return [*claims, Claim(words, interval(estimate), interval(observed), inside)]
