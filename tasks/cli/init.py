"""``sameworld init``: a first spec for a drop."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sameworld.records import Refused
from tasks.cli.console import Answer
from tasks.cli.options import DEFAULT_ROOT, AsJson, Changes, Root, SpecName

if TYPE_CHECKING:
    from tasks.cli.drop_look import DropLook


def init(  # noqa: PLR0917  # the command line's own options
    drop: Annotated[str, typer.Option("--drop", metavar="URI", help="A folder or s3://bucket/prefix.")],
    out: Annotated[Path, typer.Option("--out", metavar="S.toml", help="The spec to write.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    root: Root = DEFAULT_ROOT,  # noqa: ARG001  # every command takes it; a look at a drop needs none
    spec: SpecName = "",
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Look at a drop and write a commented spec for it."""
    from tasks.cli.show import check_spec

    check_spec(spec, changes)
    _refuse_taken(out, force=force)
    from sameworld.spec import Spec
    from tasks.cli.drop_look import look_at
    from tasks.cli.spec_text import spec_text

    look = look_at(drop)
    text = spec_text(look)
    tree = Spec.parse(tomllib.loads(text)).tree()
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return _answer(out, look, tree)


def _answer(out: Path, look: DropLook, tree: dict[str, Any]) -> Answer:
    from tasks.cli.spec_advice import missing

    absent = missing(look)
    doubtful = {one.name: one.doubt for one in look.features if one.doubt}
    views = {view: list(columns) for view, columns in look.views.items()}
    document = {"out": str(out.absolute()), "spec": tree, "doubtful": doubtful, "views": views, "missing": absent}
    label = tree["label"]
    kept = len(look.features) - len(doubtful)
    shown = [
        f"days {look.first} to {look.last}, {', '.join(look.tables)}",
        f"  target {label['target']!r} of {', '.join(map(repr, label['gains']))}, window {label['window_days']:g} days",
        f"  {kept} features; left out as doubtful: {', '.join(doubtful) or 'none'}",
        *(f"  missing: {name}: {words}" for name, words in absent.items()),
        f"next: sameworld run --day {look.last} --spec {shlex.quote(str(out))}",
        f"written: {out.absolute()}",
    ]
    return Answer(document, shown)


def _refuse_taken(out: Path, *, force: bool) -> None:
    if out.suffix != ".toml" or out.is_dir():
        raise Refused(what="a spec is a TOML file", got=str(out), wanted="a name that ends in .toml",
                      remedy=f"--out {out.name}.toml")  # fmt: skip
    if out.exists() and not force:
        raise Refused(what="there is a file already", got=str(out), wanted="a new file",
                      remedy="give --out another name, or --force to write over it")  # fmt: skip
