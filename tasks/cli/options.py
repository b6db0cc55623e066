"""The options that every command takes."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Root: TypeAlias = Annotated[
    str, typer.Option("--root", metavar="R", help="Where artifacts, runs and promotions lie: a folder or s3://.")
]
SpecName: TypeAlias = Annotated[
    str, typer.Option("--spec", metavar="S", help="A TOML file, or the name of one in experiments/.")
]
Changes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="key.path=value", help="Change one key of the spec; again and again."),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
DEFAULT_ROOT, DEFAULT_SPEC = ".sameworld", "baseline"
