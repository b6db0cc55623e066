"""Judge a profile by a suite: one Great Expectations run, every finding at once, Data Docs if wanted.

A profile has one row a ``table`` and ``segment``; a null cell is not judged. Importing this module takes seconds.
"""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

ROW_NAME = ["table", "segment"]
BLOCK, WARN = "BLOCK", "WARN"
RESULT_FORMAT = {"result_format": "COMPLETE", "unexpected_index_column_names": ROW_NAME}
SITE: dict[str, Any] = {
    "class_name": "SiteBuilder",
    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    "store_backend": {"class_name": "TupleFilesystemStoreBackend"},
}


class Words(string.Formatter):
    """Formats a sentence; beside Python's own formats, ``pct`` writes a share and ``int`` a count.

    >>> Words().format("landed: {share:pct} of {rows:int}", share=0.9123, rows=5000.0)
    'landed: 91.2 % of 5,000'
    """

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Format one value."""
        if format_spec == "pct":
            return f"{100 * float(value):.1f}".removesuffix(".0") + " %"
        if format_spec == "int":
            return f"{int(value):,}"
        return super().format_field(value, format_spec)


def findings(profile: pd.DataFrame, *, name: str, expectations: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what a suite finds in a profile: BLOCK before WARN, then by id, table and segment.

    Each is ``{"level", "id", "sentence", "got", "wanted", "table", "segment"}``. Where two expectations of one id fail
    for one row of the profile, the graver stands. An expectation that cannot be computed raises ``RuntimeError``.
    """
    context = _context()
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
    batch = _definition(context, name).get_batch(batch_parameters={"dataframe": profile})
    records = [{str(name): value for name, value in row.items()} for row in profile.to_dict("records")]
    rows = {(str(row["table"]), str(row["segment"])): row for row in records}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for result in batch.validate(suite, result_format=RESULT_FORMAT).results:
        for finding in _of_result(result, rows):
            key = (finding["id"], finding["table"], finding["segment"])
            if key not in found or finding["level"] == BLOCK:
                found[key] = finding
    return sorted(found.values(), key=lambda one: (one["level"], one["id"], one["table"], one["segment"]))


def write_site(judged: Sequence[tuple[str, pd.DataFrame, Sequence[Any]]], folder: Path) -> Path:
    """Write Data Docs of (suite name, profile, expectations) into a folder and return its index page.

    The pages are a local convenience: they link hosts that are not ours.
    """
    context = _context()
    site = {**SITE, "store_backend": {**SITE["store_backend"], "base_directory": str(folder)}}
    context.add_data_docs_site(site_name="gates", site_config=site)
    for name, profile, expectations in judged:
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
        validation = gx.ValidationDefinition(name=name, data=_definition(context, name), suite=suite)
        context.validation_definitions.add(validation)
        checkpoint = gx.Checkpoint(name=name, validation_definitions=[validation], result_format=RESULT_FORMAT)
        context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": profile})
    context.build_data_docs(site_names=["gates"])  # and not GX's own site in the temporary folder
    return folder / "index.html"


def _context() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _definition(context: Any, name: str) -> Any:
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    return asset.add_batch_definition_whole_dataframe(name)


def _of_result(result: Any, rows: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    config = result.expectation_config
    failed = result.result.get("unexpected_index_list") or []
    if not result.success and not failed:
        raise RuntimeError(f"expectation {config.meta['id']!r} could not be computed: {result.exception_info}")
    level = BLOCK if str(getattr(config.severity, "value", config.severity)) == "critical" else WARN
    low, high = config.kwargs.get("min_value"), config.kwargs.get("max_value")
    made = []
    for index in failed:
        row = rows[index["table"], index["segment"]]
        sentence = Words().format(config.meta["sentence"], **{**row, "low": low, "high": high})
        finding = {
            "level": level,
            "id": config.meta["id"],
            "sentence": sentence,
            "got": float(row[config.meta["shows"]]),
        }
        made.append({**finding, "wanted": _wanted(low, high), "table": row["table"], "segment": row["segment"]})
    return made


def _wanted(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
