"""Which step an input must come from, told by its name: URIs travel through places that can be edited by hand."""

from __future__ import annotations

from sameworld.records import Refused
from sameworld.store.artifacts import Artifact, Store

MADE_BY = {
    "days": "ingest",
    "log": "resolve",
    "delay": "measure_delay",
    "labels": "label",
    "repeats": "find_repeats",
    "examples": "assemble",
    "models": "train",
    "bundle": "calibrate",
    "look_back": "look_back",
    "evaluation": "evaluate",
    "drill": "drill",
    "decision": "decide",
}
# The function that makes what a step hands on; others of its module make parts of that.
WHOLE = "run"
BODIES = {"ingest": "ingest_day", "decide": "_verdict"}


def open_input(store: Store, name: str, uri: str) -> Artifact:
    """Open a step's input by its URI; it must come from the step that an input of this name wants, and be its whole.

    Raises Refused for another step's artifact, and for a part (one day's labels, say) where the whole is wanted.
    """
    step = MADE_BY.get(name)
    artifact = store.open(uri, step=step)
    body, whole = artifact.manifest.get("body"), BODIES.get(str(step), WHOLE)
    if step is not None and body not in (None, whole):
        raise Refused(
            what=f"{name} is a part of what {step} makes",
            got=f"{uri}, made by {step}.{body}",
            wanted=f"the whole, made by {step}.{whole}",
            remedy=f"take the URI of step {step} from a report's steps or from what the step returned",
        )
    return artifact
