"""Where a drop comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sameworld.records import Refused
from sameworld.sources.drop import Drop
from sameworld.sources.made_once import make_once
from sameworld.spec import SourceSpec
from sameworld.store.artifacts import Store, canonical, fingerprint_of
from sameworld.store.blobs import cache_folder, sha256_of
from sameworld.store.code import PROJECT, code_hash

ROOT_KEY = "root.json"
SAMPLE = PROJECT / "examples" / "open_bandit"


def open_source(source: SourceSpec) -> Drop:
    """Open the drop that a spec names; a sample or a simulated world is written once, beside every root.

    Raises Refused for a missing URI, an unknown world's parameter or a campaign that is not there.
    """
    if source.kind == "drop":
        return _mapped(source) if source.tables else Drop(source.uri)
    if source.kind == "open_bandit":
        return _open_bandit(source)
    return _closed_loop(source)


def identity(source: SourceSpec) -> dict[str, Any]:
    """Return what makes a source that source: its kind, its place or its parameters, and how its files are mapped."""
    if source.kind == "closed_loop":
        return {"kind": source.kind, "world": dict(source.world)}
    if source.kind == "open_bandit":
        # the shipped sample is itself wherever the project lies
        place = str(_sample_folder(source)) if source.uri else ""
        return {"kind": source.kind, "uri": place, "campaign": source.campaign}
    mapping = {name: fingerprint_of(table.model_dump()) for name, table in sorted(source.tables.items())}
    return {"kind": source.kind, "uri": Drop(source.uri).uri, **({"tables": mapping} if mapping else {})}


def refuse_other_source(store: Store, source: SourceSpec) -> None:
    """Raise Refused if the root belongs to another source."""
    taken, wanted = store.blobs.get(ROOT_KEY), canonical(identity(source))
    if taken is not None and taken != wanted:
        raise Refused(what="this root belongs to another source", got=wanted.decode(), wanted=taken.decode(),
                      remedy="choose another --root for this source")  # fmt: skip


def claim_root(store: Store, source: SourceSpec) -> None:
    """Make the root this source's, or raise Refused if it belongs to another."""
    store.blobs.put_if_absent(ROOT_KEY, canonical(identity(source)))
    refuse_other_source(store, source)


def _mapped(source: SourceSpec) -> Drop:
    from sameworld.sources.mapped_drop import MappedDrop

    return MappedDrop(source.uri, source.tables)


def _sample_folder(source: SourceSpec) -> Path:
    return (Path(source.uri.removeprefix("file://")) if source.uri else SAMPLE).resolve()


def _open_bandit(source: SourceSpec) -> Drop:
    from sameworld.sources import open_bandit

    if not source.campaign:
        raise Refused(what="no campaign was named", got="source.campaign is empty", wanted="men, or all",
                      remedy='--set source.campaign="men"')  # fmt: skip
    folder = _sample_folder(source)
    files = sorted(folder.glob(f"*_{source.campaign}.parquet"))
    parameters = {"campaign": source.campaign, "files": [sha256_of(file) for file in files]}
    return _made_once(
        open_bandit.__name__, parameters, lambda out: open_bandit.write_drop(folder, out, campaign=source.campaign)
    )


def _closed_loop(source: SourceSpec) -> Drop:
    from sameworld.sources import closed_loop_drop
    from sameworld.sources.closed_loop_parameters import WorldParameters

    world = WorldParameters.parse(source.world)
    return _made_once(
        closed_loop_drop.__name__, {"world": repr(world)}, lambda out: closed_loop_drop.write_drop(out, world)
    )


def _made_once(module: str, parameters: dict[str, Any], write: Callable[[Path], object]) -> Drop:
    """Return the drop that a module writes for these parameters; written aside, then renamed into place."""
    name = fingerprint_of({"module": module, "code": code_hash(module), "parameters": parameters})
    return Drop(str(make_once(cache_folder() / "sources" / name, write)))
