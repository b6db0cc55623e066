"""Which spec a name means."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sameworld.records import Refused
from sameworld.spec import Spec, load_spec
from sameworld.store.code import PROJECT

EXPERIMENTS = "experiments"


def find_spec(name: str, changes: Sequence[str] = ()) -> Spec:
    """Return the spec of a name, with changes on top.

    name : a TOML file's path; else a name looked up in ``./experiments``, then in the installed project's
    changes : ``key.path=value``, the value in TOML

    Raises Refused for a name that is not known, with the nearest that is, and for whatever is wrong inside.
    """
    known = known_specs()
    return load_spec(_path(name, known), changes=changes, known=known)


def known_specs() -> dict[str, Path]:
    """Return every spec that has a name; one in ``./experiments`` goes before the installed one."""
    folders = (PROJECT / EXPERIMENTS, Path(EXPERIMENTS))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def use_threads(spec: Spec) -> None:
    """Bound the threads of the libraries that compute; must come before they are imported."""
    if spec.engine.threads:
        for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):
            os.environ[name] = str(spec.engine.threads)


def _path(name: str, known: Mapping[str, Path]) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise Refused(
        what="no such spec",
        got=repr(name),
        wanted=f"a TOML file, or one of: {', '.join(sorted(known))} (experiments/*.toml)",
        remedy=f"did you mean {near[0]!r}?" if near else "sameworld init writes a spec for a drop",
    )
