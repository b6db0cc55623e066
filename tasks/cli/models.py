"""Which model a name means, and the log that it may look features up in."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime

from sameworld.models.bundle import STEP
from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, Store, artifact_at
from sameworld.store.log import Log
from sameworld.store.promotions import in_production, promotions
from sameworld.store.times import parse_time

STAGES = ("champion", "challenger")


def find_model(name: str, store: Store) -> Artifact:
    """Return a bundle by its version, by the stage that it holds, or by its URI (of whichever root)."""
    if "/" in name:
        return artifact_at(name, step=STEP)
    if name in STAGES:
        return _holder(name, store)
    versions = {str(one.record["version"]): one for one in _bundles(store)}
    if name in versions:
        return versions[name]
    near = difflib.get_close_matches(name, versions, n=1, cutoff=0.5)
    raise Refused(
        what="no such model in this root",
        got=repr(name),
        wanted=f"champion, challenger, a bundle's URI or a version: {', '.join(sorted(versions)[-5:]) or 'none yet'}",
        remedy=f"did you mean {near[0]!r}?" if near else "sameworld show names a run's version and bundle",
    )


def log_for(bundle: Artifact, store: Store) -> Log | None:
    """Return the newest log of the bundle's root, or None where there is none as new as the bundle.

    Older logs would lack the values of views that a serving system can read by now; a row's own time still bounds
    what is joined to it.
    """
    examples = store.find("assemble", str(bundle.manifest["inputs"]["examples"]))
    own = store.find("resolve", str(examples.manifest["inputs"]["log"])) if examples else None
    if own is None:
        return None
    newest = max(_resolved(store), key=lambda one: (_cutoff(one), one.fingerprint))
    return Log.open(newest if _cutoff(newest) > _cutoff(own) else own, store)


def _holder(stage: str, store: Store) -> Artifact:
    held = in_production(promotions(store), stage=stage)
    if held is None:
        raise Refused(
            what=f"there is no {stage} in this root",
            got=store.root,
            wanted="a promotion",
            remedy="sameworld history shows the promotions; a version or a bundle's URI works without one",
        )
    found = store.find(STEP, held.bundle_fingerprint)
    if found is None:
        raise Refused(what=f"the bundle of {held.version} is gone", got=held.bundle_fingerprint, wanted="its artifact",
                      remedy="run its day again")  # fmt: skip
    return found


def _bundles(store: Store) -> Iterator[Artifact]:
    return (one for one in _artifacts(store, STEP) if one.cannot is None)


def _resolved(store: Store) -> Iterator[Artifact]:
    """Return the logs as of their cutoffs; a log's parts are artifacts of the same step."""
    return (one for one in _artifacts(store, "resolve") if one.manifest["body"] == "run" and one.cannot is None)


def _cutoff(resolved: Artifact) -> datetime:
    return parse_time(str(resolved.record["cutoff"]))


def _artifacts(store: Store, step: str) -> Iterator[Artifact]:
    keys = store.blobs.keys(f"artifacts/{step}")
    fingerprints = sorted(key.split("/")[2] for key in keys if key.endswith("/manifest.json"))
    found = (store.find(step, fingerprint) for fingerprint in fingerprints)
    return (one for one in found if one is not None)
