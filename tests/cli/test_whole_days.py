"""From a drop to scores, with nothing but the command: init, run, show, history, score."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cli.terminal import Said, sameworld
from worlds.shops import news_feed

from sameworld.models.bundle import load_bundle
from sameworld.models.rank import rank
from sameworld.store.artifacts import Store, artifact_at
from sameworld.store.promotions import Promotion, promote
from tasks.cli import score as score_command
from tasks.cli.candidates import batches

DAY = "2026-03-09"
VIEW = 'features.views={author_stats=["author_followers"]}'


@dataclass(frozen=True)
class World:
    drop: Path
    spec: Path
    root: Path
    said: Said

    @property
    def bundle(self) -> str:
        return str(self.said.document["model"]["bundle"])

    def run(self, *more: str) -> Said:
        return sameworld("run", "--day", DAY, "--spec", self.spec, "--root", self.root, "--set", VIEW, *more)

    def score(self, rows: pl.DataFrame, out: Path, *more: object) -> tuple[Said, pl.DataFrame]:
        source = out.with_suffix(".in.parquet")
        rows.write_parquet(source)
        ends = ("--in", source, "--out", out, "--root", self.root, "--json")
        said = sameworld("score", "--model", self.bundle, *ends, *more)
        return said, pl.read_parquet(out) if said.code == 0 else pl.DataFrame()

    def candidates(self, requests: int = 30) -> pl.DataFrame:
        """Return the last day's impressions of some requests, without their outcomes."""
        files = sorted(self.drop.glob(f"day={DAY}/impressions/*.parquet"))
        rows = pl.concat(pl.read_parquet(file) for file in files).sort("request_id", "position")
        wanted = rows["request_id"].unique(maintain_order=True).head(requests)
        names = ["request_id", "item_id", "shown_at", "x_topic", "x_recency_hours", "x_author_score", "x_is_video"]
        return rows.filter(pl.col("request_id").is_in(wanted.implode())).select(*names)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("whole")
    drop = news_feed(folder / "drop", seed=4, days=9, requests_per_day=150).drop
    assert sameworld("init", "--drop", drop, "--out", folder / "s.toml").code == 0
    made = World(drop, folder / "s.toml", folder / "root", Said(0, "{}", ""))
    return World(made.drop, made.spec, made.root, made.run("--json"))


def promotion(version: str, at: str) -> Promotion:
    fields = {"number": 0, "bundle_fingerprint": "f", "previous": None, "stage": "champion", "reason": "better"}
    return Promotion(**fields, at=at, version=version, bundle=version, cutoff=at, run="r", by="retrain")


def followers(world: World, rows: pl.DataFrame, at: pl.Expr) -> list[int | None]:
    """Return the view's value for each row by looking through all of it."""
    view = pl.concat(pl.read_parquet(file) for file in sorted(world.drop.glob("day=*/features/author_stats/*.parquet")))
    found = []
    for item, moment in rows.select("item_id", at).iter_rows():
        known = view.filter(pl.col("item_id") == item, pl.col("available_at") <= moment).sort("available_at")
        found.append(known["author_followers"][-1] if len(known) else None)
    return found


def test_a_run_prints_its_report_and_finishes_with_0(world: World) -> None:
    report = world.said.document
    assert (world.said.code, report["run"]["day"]) == (0, DAY)
    assert report["run"]["cutoff"] == "2026-03-10T00:00:00Z"
    assert report["decision"]["outcome"] in {"PROMOTE", "HOLD", "REJECT"}
    assert "x_author_followers" in report["model"]["features"]
    lasting = ("decision", "metrics", "labels", "log", "model")
    shown = sameworld("show", "--root", world.root, "--json").document
    assert {name: shown[name] for name in lasting} == {name: report[name] for name in lasting}


def test_progress_goes_to_stderr_step_by_step(world: World) -> None:
    assert world.said.err.splitlines()[0].split() == ["1/29", "ingest"]
    assert "promote" in world.said.err


def test_the_same_day_again_reuses_every_artifact_and_says_where_the_page_is(world: World) -> None:
    said = world.run()
    counts, last = said.out.splitlines()[-2:]
    made, reused = counts.split()[0], counts.split()[2]
    assert (said.code, made) == (0, reused)
    assert Path(last.removeprefix("report: ")).read_text(encoding="utf-8").startswith("<!")


def test_one_step_alone_leaves_the_whole_report_as_it_was(world: World) -> None:
    before = sameworld("show", "--root", world.root, "--json").document
    said = world.run("--only", "label")
    assert (said.code, "/artifacts/label/" in said.out.splitlines()[-1]) == (0, True)
    assert sameworld("show", "--root", world.root, "--json").document == before


def test_show_tells_the_decision_the_sums_and_the_page(world: World) -> None:
    out = sameworld("show", "--root", world.root).out
    report = world.said.document
    assert out.startswith(f" {report['decision']['outcome']} ")
    assert f"{report['log']['impressions']['rows_in']:,}" in out
    assert out.splitlines()[-1].endswith("/report.html")


def test_history_knows_what_was_in_production_when(tmp_path: Path) -> None:
    ats = ["2026-03-02T06:00:00Z", "2026-03-03T06:00:00Z"]
    for number, at in enumerate(ats, start=1):
        promote(Store(str(tmp_path)), promotion(f"v{number}", at))
    documents = [
        sameworld("history", "--root", tmp_path, "--json", *more).document
        for more in (("--at", "2026-03-02T05:59:59Z"), ("--at", ats[0]), ("--at", "2026-03-03T07:00:00+01:00"), ())
    ]
    assert [one["champion"] for one in documents[1:]] == ["v1", "v2", "v2"]
    assert documents[0]["champion"] == {"cannot": "there was no champion at that time"}
    assert [(one["number"], one["from"], one["to"]) for one in documents[3]["events"]] == [
        (1, None, "champion"),
        (2, "v1", "champion"),
    ]


def test_scores_are_those_of_rank_with_the_views_joined_as_of_each_row(world: World, tmp_path: Path) -> None:
    rows = world.candidates()
    said, scored = world.score(rows, tmp_path / "out.parquet")
    values = pl.Series("x_author_followers", followers(world, rows, pl.col("shown_at")), dtype=pl.Int64)
    wanted = rank(rows.with_columns(pl.col("x_topic").cast(pl.String), values), load_bundle(artifact_at(world.bundle)))
    assert values.null_count() < len(values)
    assert scored.drop("score", "probability", "position").equals(rows)
    assert scored.select("score", "probability", "position").equals(wanted.select("score", "probability", "position"))
    assert said.document["joined"] == {"author_stats": ["author_followers"]}
    assert said.document["missing"] == []


def test_without_shown_at_views_join_as_of_the_bundles_cutoff(world: World, tmp_path: Path) -> None:
    rows = world.candidates().drop("shown_at")
    scored = world.score(rows, tmp_path / "out.parquet")[1]
    at = pl.lit(datetime(2026, 3, 10, tzinfo=UTC) - timedelta(microseconds=1))
    values = pl.Series("x_author_followers", followers(world, rows, at), dtype=pl.Int64)
    wanted = rank(rows.with_columns(pl.col("x_topic").cast(pl.String), values), load_bundle(artifact_at(world.bundle)))
    assert scored["score"].equals(wanted["score"])


def test_a_value_in_the_file_goes_before_the_views_null_included(world: World, tmp_path: Path) -> None:
    rows = world.candidates().with_columns(x_author_followers=pl.lit(None, dtype=pl.Int64))
    said, scored = world.score(rows, tmp_path / "out.parquet")
    wanted = rank(rows.with_columns(pl.col("x_topic").cast(pl.String)), load_bundle(artifact_at(world.bundle)))
    assert (said.document["joined"], scored["score"].equals(wanted["score"])) == ({}, True)


@pytest.mark.parametrize("text", [pl.String, pl.Categorical, pl.Enum(["a", "b", "c"])])
def test_any_kind_of_text_scores_the_same(world: World, tmp_path: Path, text: Any) -> None:
    plain = world.candidates(3).with_columns(
        request_id=pl.Series(list("abc")).gather(world.candidates(3)["request_id"].rle_id() % 3),
        x_topic=pl.col("x_topic").cast(pl.String),
    )
    wanted = world.score(plain, tmp_path / "plain.parquet")[1]
    scored = world.score(plain.with_columns(pl.col("request_id").cast(text)), tmp_path / "other.parquet")[1]
    assert scored["score"].equals(wanted["score"])
    assert scored["position"].equals(wanted["position"])


def test_exploration_draws_each_position_as_often_as_its_propensity_says(world: World, tmp_path: Path) -> None:
    one = world.candidates(1)
    copies = pl.concat(one.with_columns(request_id=pl.lit(f"r{number}")) for number in range(4000))
    scored = world.score(copies, tmp_path / "out.parquet", "--tau", 0.5, "--epsilon", 0.1, "--seed", 9)[1]
    cells = scored.group_by("item_id", "position").agg(pl.col("propensity").first(), drawn=pl.len() / 4000)
    sums = cells.group_by("position").agg(pl.col("propensity").sum())
    np.testing.assert_allclose(sums["propensity"], 1.0, atol=1e-6)
    error = np.sqrt(cells["propensity"] * (1 - cells["propensity"]) / 4000)
    assert (np.abs(cells["drawn"] - cells["propensity"]) < 5 * error).all()


@pytest.mark.parametrize("explored", [(), ("--tau", 5.0, "--epsilon", 0.5, "--seed", 1)])
def test_batches_of_whole_requests_change_neither_a_score_nor_a_draw(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explored: tuple[object, ...]
) -> None:
    whole = world.score(world.candidates(), tmp_path / "whole.parquet", *explored)[1]
    monkeypatch.setattr(score_command, "BATCH_ROWS", 25)
    cut = world.score(world.candidates(), tmp_path / "cut.parquet", *explored)[1]
    assert cut.drop("propensity", strict=False).equals(whole.drop("propensity", strict=False))
    if explored:  # a quadrature, whose last digit depends on the longest list beside it
        np.testing.assert_allclose(cut["propensity"], whole["propensity"], rtol=1e-9)
    assert len(list(batches(whole["request_id"], 25))) > 3


def test_exploration_is_drawn_anew_for_each_request_and_seed(world: World, tmp_path: Path) -> None:
    one = world.candidates(1)
    copies = pl.concat(one.with_columns(request_id=pl.lit(f"r{number:02}")) for number in range(40))
    found = [
        world.score(copies, tmp_path / f"{n}.parquet", "--tau", 5, "--epsilon", 0.5, "--seed", n)[1] for n in (1, 2)
    ]
    assert len({tuple(part["position"]) for part in found[0].partition_by("request_id")}) > 30
    assert (found[0]["position"] != found[1]["position"]).mean() > 0.5


@pytest.mark.parametrize(
    ("spoil", "what", "got"),
    [
        (
            pl.col("x_recency_hours").cast(pl.String),
            "column 'x_recency_hours' of the candidates has a wrong type",
            "string",
        ),
        (pl.lit(3).alias("x_topic"), "column 'x_topic' of the candidates has a wrong type", "int32"),
        (pl.col("shown_at").dt.replace_time_zone(None), "column 'shown_at' has timestamps without a zone", "datetime"),
        (pl.lit(None, dtype=pl.String).alias("item_id"), "a candidate has a null id", ""),
        (pl.lit("i").alias("item_id"), "a candidate stands twice in its request", "request"),
    ],
)
def test_candidates_of_the_wrong_kind_are_refused_in_four_parts(
    world: World, tmp_path: Path, spoil: pl.Expr, what: str, got: str
) -> None:
    said, _ = world.score(world.candidates(2).with_columns(spoil), tmp_path / "out.parquet")
    assert (said.code, said.error["what"], got in said.error["got"]) == (2, what, True)
    assert said.error["wanted"]
    assert "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.in.parquet"]


def test_a_file_without_rows_scores_to_a_file_without_rows(world: World, tmp_path: Path) -> None:
    scored = world.score(world.candidates(1).clear(), tmp_path / "out.parquet")[1]
    assert (len(scored), scored.columns[-3:]) == (0, ["score", "probability", "position"])


def test_features_that_come_from_nowhere_read_as_missing_and_are_named(world: World, tmp_path: Path) -> None:
    rows = world.candidates(2).drop("x_is_video")
    said, scored = world.score(rows, tmp_path / "out.parquet")
    assert (said.document["missing"], scored["score"].is_finite().all()) == (["x_is_video"], True)


def test_a_version_names_its_bundle_and_a_wrong_one_the_nearest(world: World, tmp_path: Path) -> None:
    version = world.said.document["model"]["version"]
    world.candidates(1).write_parquet(tmp_path / "in.parquet")
    ends = ("--in", tmp_path / "in.parquet", "--out", tmp_path / "out.parquet", "--root", world.root, "--json")
    assert sameworld("score", "--model", version, *ends).document["bundle"] == world.bundle
    said = sameworld("score", "--model", version[:-1], *ends)
    assert (said.code, said.error["remedy"]) == (2, f"did you mean {version!r}?")
    said = sameworld("score", "--model", world.bundle.replace("calibrate", "train"), *ends)
    assert (said.code, said.error["what"]) == (2, "not a URI of an artifact of this root")
