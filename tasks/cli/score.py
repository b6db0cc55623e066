"""``sameworld score``: score and order any file of candidates with a bundle."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sameworld.records import Refused
from tasks.cli.console import Answer
from tasks.cli.options import DEFAULT_ROOT, AsJson, Changes, Root, SpecName
from tasks.cli.show import check_spec

if TYPE_CHECKING:
    import polars as pl

    from sameworld.models.bundle import Bundle
    from sameworld.models.rank import Exploration
    from tasks.cli.candidates import ViewJoin

BATCH_ROWS = 1_000_000
ADDED = ("score", "probability", "position", "propensity")


def score(  # noqa: PLR0917  # the command line's own options
    model: Annotated[str, typer.Option("--model", metavar="M", help="A version, champion, challenger or a URI.")],
    source: Annotated[Path, typer.Option("--in", metavar="F", help="Candidates: request_id, item_id, x_*, ….")],
    target: Annotated[Path, typer.Option("--out", metavar="F", help="Where to write them with their scores.")],
    tau: Annotated[float | None, typer.Option("--tau", help="Explore at this temperature of the scores.")] = None,
    epsilon: Annotated[float | None, typer.Option("--epsilon", help="The share of requests to shuffle.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the draws (default 0).")] = None,
    root: Root = DEFAULT_ROOT,
    spec: SpecName = "",
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Add score, probability and position to a file of candidates; with --tau and --epsilon explore, too.

    The probability is that of the target within the window, if shown at position 1. With exploration the exact
    propensity of each item at its position is added. Every other column stays.
    """
    check_spec(spec, changes)
    _refuse_same_file(source, target)
    explored = _exploration(tau, epsilon, seed)
    from tasks.cli.candidates import open_candidates

    frame = open_candidates(source)
    known = frame.collect_schema().names()
    bundle, views = _opened(model, root, known)
    rows = _write(target, frame, bundle, views, explored)
    return _answer(bundle, views, target, rows, [name for name in ADDED[: 4 if explored else 3] if name in known])


def _opened(model: str, root: str, known: list[str]) -> tuple[Bundle, ViewJoin]:
    """Return the model, and where the features come from that a file with these columns lacks."""
    from sameworld.models.bundle import load_bundle
    from sameworld.store.artifacts import Store
    from tasks.cli.candidates import view_join
    from tasks.cli.models import find_model, log_for

    artifact = find_model(model, Store(root))
    bundle = load_bundle(artifact)
    log = log_for(artifact, Store(artifact.blobs.root)) if bundle.about["views"] else None
    return bundle, view_join(bundle, log, known)


def _answer(bundle: Bundle, views: ViewJoin, target: Path, rows: int, replaced: list[str]) -> Answer:
    document: dict[str, Any] = {
        "model": bundle.version,
        "bundle": bundle.uri,
        "rows": rows,
        "out": str(target.absolute()),
        "joined": {view: list(columns) for view, columns in views.views.items()},
        "missing": list(views.absent),
        "replaced": replaced,
    }
    shown = [f"{rows} rows scored by {bundle.version}"]
    shown += [f"  joined from {view}: {', '.join(columns)}" for view, columns in document["joined"].items()]
    if views.absent:
        shown.append(f"  in neither the file nor a view, so read as missing: {', '.join(views.absent)}")
    if replaced:
        shown.append(f"  replaced in the output: {', '.join(replaced)}")
    return Answer(document, [*shown, f"written: {document['out']}"])


def _write(target: Path, frame: pl.LazyFrame, bundle: Bundle, views: ViewJoin, explored: Exploration | None) -> int:
    """Write the scored rows aside, batch by batch, then move them into place; return how many there are."""
    import polars as pl

    from tasks.cli.candidates import batches, scored_columns

    columns = scored_columns(frame, bundle.features)
    ids = columns.select("request_id").collect(engine="streaming")["request_id"]
    aside = target.absolute().with_name(f".aside-{uuid.uuid4().hex}")
    parts: list[Path] = []
    try:
        for number, (first, rows) in enumerate(batches(ids, BATCH_ROWS)):
            part = aside.with_name(f"{aside.name}-{number}")
            parts.append(part)
            read = columns.slice(first, rows)
            added = _scored(read, bundle, views, explored)
            frame.slice(first, rows).collect(engine="streaming").with_columns(added).write_parquet(part)
        pl.scan_parquet(parts, glob=False).sink_parquet(aside) if len(parts) > 1 else parts[0].rename(aside)
        aside.replace(target)
    finally:
        for path in (aside, *parts):
            path.unlink(missing_ok=True)
    return len(ids)


def _scored(rows: pl.LazyFrame, bundle: Bundle, views: ViewJoin, explored: Exploration | None) -> list[pl.Series]:
    from sameworld.models.rank import rank
    from sameworld.store.times import parse_time

    ranked = rank(views.add(rows, parse_time(bundle.cutoff)).collect(engine="streaming"), bundle, explored)
    return [ranked[name] for name in ADDED if name in ranked.columns]


def _exploration(tau: float | None, epsilon: float | None, seed: int | None) -> Exploration | None:
    if tau is None and epsilon is None and seed is None:
        return None
    got = f"--tau {tau} --epsilon {epsilon}"
    if tau is None or epsilon is None or not tau > 0 or not 0 <= epsilon <= 1:
        raise Refused(what="exploration needs both its parameters", got=got, wanted="tau > 0 and epsilon in [0, 1]",
                      remedy="--tau 0.2 --epsilon 0.02, or neither for the greedy order")  # fmt: skip
    from sameworld.models.rank import Exploration

    return Exploration(tau=tau, epsilon=epsilon, seed=seed or 0)


def _refuse_same_file(source: Path, target: Path) -> None:
    if target.resolve() == source.resolve() or (target.exists() and source.exists() and target.samefile(source)):
        raise Refused(what="--out would overwrite the candidates", got=str(target), wanted="another file",
                      remedy="give --out another name")  # fmt: skip
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise Refused(what="the scores cannot be written there", got=str(target), wanted="a file in a folder that is "
                      "there", remedy="make the folder first, and name a file in it")  # fmt: skip
