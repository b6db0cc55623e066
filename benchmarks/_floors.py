"""What a step is measured against: the least that reading and writing the same columns costs, and the pandas way.

Each function prepares a piece of work and returns it; imports and listings are done before the clock starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from benchmarks.big_drop import FIRST_INSTANT, FLOATS, VIEW, VIEW_COLUMN

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["request_id", "item_id"]
LABEL_COLUMNS = [*KEYS, "user_id", "propensity", "shown_at", "position", "x_surface"]
WINDOW, LAG, KINDS = timedelta(days=7), timedelta(days=1), ("click", "purchase")
Piece = Callable[[], Any]


@dataclass(frozen=True)
class Place:
    """Where a benchmark's drop, root and other output lie, and what the product's steps handed on so far."""

    folder: Path
    days: int
    handles: dict[str, Any]

    @property
    def drop(self) -> Path:
        """The drop."""
        return self.folder / "drop"

    @property
    def root(self) -> str:
        """The product's root."""
        return str(self.folder / "root")

    @property
    def out(self) -> Path:
        """A file to write to."""
        return self.folder / "out.parquet"

    def table(self, name: str) -> list[Path]:
        """Return a table's files as ``ingest`` wrote them, one a day."""
        files = (Path(uri) / f"{name}.parquet" for uri in self.handles["ingest"]["uri"])
        return [file for file in files if file.exists()]

    def label_parts(self) -> list[Path]:
        """Return the files of ``label``, one a shown day."""
        listing = Path(self.handles["label"]["uri"])
        parts = json.loads((listing / "record.json").read_bytes())["parts"]
        return [listing.parent / part["fingerprint"] / "labels.parquet" for part in parts]

    def landed(self, name: str, day: int) -> list[Path]:
        """Return a table's files of one day of the drop."""
        folder = self.drop / f"day={FIRST_INSTANT.date() + timedelta(days=day)}" / name
        return sorted(folder.glob("*.parquet"))


def _write(frame: pl.LazyFrame, path: Path) -> None:
    """Write as the store does."""
    frame.sink_parquet(path, compression="zstd", compression_level=1, row_group_size=131_072, engine="streaming")


def _read(files: list[Path], columns: list[str]) -> None:
    """Read columns and keep nothing: a count of nulls forces each of them to be decoded."""
    pl.scan_parquet(files).select(pl.col(columns).null_count()).collect(engine="streaming")


def ingest(place: Place) -> Piece:
    """Read each day's tables and write them again."""
    names = ("requests", "impressions", "outcomes", f"features/{VIEW}")
    landed = [files for day in range(place.days) for name in names if (files := place.landed(name, day))]

    def work() -> None:
        for files in landed:
            _write(pl.scan_parquet(files), place.out)

    return work


def resolve(place: Place) -> Piece:
    """Read the columns that say whether a row stands: keys, times, positions."""
    columns = {
        "requests": ["request_id", "shown_at", "arrived_at"],
        "impressions": [*KEYS, "position", "shown_at", "arrived_at"],
        "outcomes": [*KEYS, "kind", "happened_at", "retracted", "arrived_at"],
        f"features.{VIEW}": ["item_id", "available_at"],
    }

    def work() -> None:
        for name, wanted in columns.items():
            _read(place.table(name), wanted)

    return work


def check_log(place: Place) -> Piece:
    """Take a log's profile by bare scans: rows and requests a day, nulls by feature, exact keys, kinds."""
    impressions = pl.scan_parquet(place.table("impressions"))
    day, request = pl.col("arrived_at").dt.date().alias("day"), pl.col("request_id").n_unique()
    features = [name for name in impressions.collect_schema().names() if name.startswith("x_")]
    floats = [f"x_float_{n:02d}" for n in range(FLOATS)]
    nulls = [(pl.col(x).is_null() | pl.col(x).is_nan()) if x in floats else pl.col(x).is_null() for x in features]
    position = pl.col("position")
    by_request = impressions.group_by("request_id").agg(
        rows=pl.len(), items=pl.col("item_id").n_unique(), first=position.min(), last=position.max()
    )
    outcomes, requests = (pl.scan_parquet(place.table(name)) for name in ("outcomes", "requests"))
    profile = [
        impressions.group_by(day).agg(pl.len(), request, *(null.sum() for null in nulls)),
        by_request.select(pl.col("rows", "items").sum(), gaps=(pl.col("last") != pl.col("rows")).sum()),
        *(table.group_by(day).agg(pl.len(), request) for table in (outcomes, requests)),
        outcomes.group_by("kind").len(),
        pl.scan_parquet(place.table(f"features.{VIEW}")).select(pl.len()),
    ]
    return lambda: [query.collect(engine="streaming").height for query in profile]


def measure_delay(place: Place) -> Piece:
    """Read the times of impressions, requests and outcomes, and the keys that join them."""
    times = ["shown_at", "arrived_at"]

    def work() -> None:
        _read(place.table("impressions"), [*KEYS, *times, "x_surface"])
        _read(place.table("requests"), times)
        _read(place.table("outcomes"), [*KEYS, "kind", "happened_at", "arrived_at"])

    return work


def label(place: Place) -> Piece:
    """Read what labels are made of, and write tables of their shape, one a day, in which nothing ever happened."""
    columns = [pl.col("x_surface").alias("segment") if name == "x_surface" else name for name in LABEL_COLUMNS]
    never = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    nothing = {f"is_{kind}": pl.lit(value=False) for kind in KINDS} | {f"known_{kind}": never for kind in KINDS}
    tables = [
        pl.scan_parquet(file).select(
            *columns,
            closes_at=pl.col("shown_at") + (WINDOW + LAG),
            request=pl.int_range(pl.len(), dtype=pl.UInt32),
            gain=pl.lit(0.0),
            target=pl.lit(0, dtype=pl.Int8),
            **nothing,
        )
        for file in place.table("impressions")
    ]

    def work() -> None:
        _read(place.table("outcomes"), [*KEYS, "kind", "happened_at", "arrived_at", "retracted"])
        for table in tables:
            _write(table, place.out)

    return work


def assemble(place: Place) -> Piece:
    """Read the labels' keys and the view, and read the features and write them with one more, a table a day."""
    joined = pl.col("x_float_00").cast(pl.Float64).alias("x_joined")
    tables = [pl.scan_parquet(file).select(pl.col("^x_.*$"), joined) for file in place.table("impressions")]

    def work() -> None:
        _read(place.label_parts(), [*KEYS, "shown_at"])
        _read(place.table(f"features.{VIEW}"), ["item_id", "available_at", VIEW_COLUMN])
        for table in tables:
            _write(table, place.out)

    return work


FLOORS: dict[str, Callable[[Place], Piece]] = {
    "ingest": ingest,
    "resolve": resolve,
    "validate.check_log": check_log,
    "measure_delay": measure_delay,
    "label": label,
    "assemble": assemble,
}


def _frame(files: list[Path], columns: list[str] | None = None) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([pd.read_parquet(file, columns=columns) for file in files], ignore_index=True)


def pandas_label(place: Place) -> Piece:
    """Label as a pandas script does: read, merge outcomes, flag, merge back, write."""
    import pandas as pd

    now = pd.Timestamp(FIRST_INSTANT + timedelta(days=place.days))

    def work() -> None:
        shown = _frame(place.table("impressions"), LABEL_COLUMNS).drop_duplicates(KEYS)
        events = _frame(place.table("outcomes")).merge(shown[[*KEYS, "shown_at"]], on=KEYS)
        closes = events["shown_at"] + (WINDOW + LAG)
        events = events[(events["happened_at"] < events["shown_at"] + WINDOW) & (events["arrived_at"] < closes)]
        for kind in KINDS:
            happened = events.loc[events["kind"] == kind, KEYS].drop_duplicates().assign(**{f"is_{kind}": True})
            shown = shown.merge(happened, on=KEYS, how="left")
            shown[f"is_{kind}"] = shown[f"is_{kind}"].notna()
        shown["closed"] = shown["shown_at"] + (WINDOW + LAG) <= now
        shown["gain"] = shown["is_click"] + 5.0 * shown["is_purchase"]
        shown.to_parquet(place.out, compression="zstd")

    return work


def pandas_assemble(place: Place) -> Piece:
    """Assemble as a pandas script does: read, merge labels with features, join the view as of shown_at, sort, write."""
    import pandas as pd

    served = [name for name in pl.read_parquet_schema(place.table("impressions")[0]) if name.startswith("x_")]

    def work() -> None:
        labels = _frame(place.label_parts())
        features = _frame(place.table("impressions"), [*KEYS, *served]).drop_duplicates(KEYS)
        rows = labels.merge(features, on=KEYS, how="left").sort_values("shown_at")
        view = _frame(place.table(f"features.{VIEW}"), ["item_id", "available_at", VIEW_COLUMN])
        view = view.sort_values("available_at")
        rows = pd.merge_asof(rows, view, left_on="shown_at", right_on="available_at", by="item_id")
        rows.sort_values(["shown_at", "request_id", "position"]).to_parquet(place.out, compression="zstd")

    return work


def gx_check_log(place: Place) -> Piece:
    """Check the impressions row by row with Great Expectations on a pandas frame."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("impressions").add_dataframe_asset("impressions")
    batches = asset.add_batch_definition_whole_dataframe("impressions")

    def work() -> bool:
        frame = _frame(place.table("impressions")).drop_duplicates(KEYS)
        served = [name for name in map(str, frame) if name.startswith("x_")]
        expected = [
            gxe.ExpectCompoundColumnsToBeUnique(column_list=KEYS),
            gxe.ExpectColumnValuesToBeBetween(column="position", min_value=1),
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in (*KEYS, "shown_at", "arrived_at")),
            *(gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=0.5) for name in served),
        ]
        suite = gx.ExpectationSuite(name="impressions", expectations=expected)
        return bool(batches.get_batch(batch_parameters={"dataframe": frame}).validate(suite).success)

    return work


# The other ways, and up to how many impressions they are asked.
OTHERS: dict[str, tuple[str, Callable[[Place], Piece], int]] = {
    "label": ("pandas", pandas_label, 10_000_000),
    "assemble": ("pandas", pandas_assemble, 3_000_000),
    "validate.check_log": ("Great Expectations on pandas", gx_check_log, 10_000_000),
}
