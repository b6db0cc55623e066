"""``sameworld prove``: the three failures reproduced and cured in worlds whose truth is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.cli.console import Answer, json_text
from tasks.cli.options import DEFAULT_ROOT, AsJson, Changes, Root, SpecName

if TYPE_CHECKING:
    from tasks.cli.proof_failures import Found

Full = Annotated[bool, typer.Option("--full", help="Twelve worlds of twice the traffic; most of an hour.")]
Quick = Annotated[bool, typer.Option("--quick", help="Two small worlds in a minute or two: a look, not a proof.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Worlds of each failure; default 6, with --full 12.")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="Worlds at a time, one core each.")]
VERDICTS = {"True": "holds", "False": "DOES NOT HOLD"}


def prove(  # noqa: PLR0917  # the options of a command
    root: Root = DEFAULT_ROOT,
    full: Full = False,
    quick: Quick = False,
    seeds: Seeds = None,
    processes: Processes = 2,
    spec: SpecName = "",
    changes: Changes = None,
    as_json: AsJson = False,  # noqa: ARG001  # read where answers are printed
) -> Answer:
    """Reproduce the loop, the delay and the nulls, alone and together, and cure them: broken beside fixed.

    Every number has an interval over worlds; a claim that does not hold says so. The page is R/prove/report.html.
    """
    from sameworld.records import Refused
    from sameworld.store.artifacts import Store
    from tasks.cli.proof_worlds import DEFAULT, FULL, NAMES, QUICK
    from tasks.cli.show import check_spec

    if full and quick:
        raise Refused(what="two sizes of the proof", got="--full and --quick", wanted="one of them, or neither")
    check_spec(spec, changes)
    store = Store(root)  # an unknown root is refused before the worlds are run
    size = (FULL if full else QUICK if quick else DEFAULT).of_seeds(seeds)
    found = _worlds([(name, seed, size.name) for name in reversed(NAMES) for seed in size.seeds], processes)
    from sameworld.page.proof import render_proof
    from tasks.cli.proof_estimates import failure_record

    failures = [failure_record(size.proof(name), [one for one in found if one.name == name]) for name in NAMES]
    document: dict[str, Any] = {"size": size.name, "seeds": list(size.seeds), "failures": failures}
    store.blobs.put("prove/report.json", json_text(document).encode())
    store.blobs.put("prove/report.html", render_proof(document).encode())
    return Answer(document, _lines(failures, f"{store.root}/prove/report.html"))


def _worlds(jobs: Sequence[tuple[str, int, str]], processes: int) -> list[Found]:
    """Run each world in a process of its own; libraries that would take more cores are held to one."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from tasks.cli.proof_failures import one_world

    with _one_core_each(), ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(one_world, *job): job for job in jobs}
        done: dict[tuple[str, int, str], Found] = {}
        try:
            for future in as_completed(waiting):
                name, seed, _ = job = waiting[future]
                done[job] = future.result()
                sys.stderr.write(f"{len(done):>3}/{len(jobs)} {name}, world {seed}\n")
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the worlds that wait would still be run
            raise
        return [done[job] for job in jobs]


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Let processes started meanwhile compute on one thread: the libraries read this when they are imported."""
    names = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _lines(failures: Sequence[Mapping[str, Any]], page: str) -> list[Any]:
    lines: list[Any] = []
    for failure in failures:
        offline, share = failure["metric"]["offline"], failure["reward_share"]
        lines.append(failure["name"])
        for who in ("broken", "fixed"):
            arm = failure[who]
            lines.append(
                f"  {who:<7} {offline} offline {_words(arm['offline'])}, {failure['metric']['truth']} in truth "
                f"{_words(arm['truth'])}; share of the oracle's reward {_words(share[who])}"
            )
        for claim in failure["claims"]:
            found = _words(claim["found"], signed=True)
            verdict = VERDICTS[str(claim["holds"])] if isinstance(claim["holds"], bool) else "cannot say"
            lines.append(f"  · {claim['what']}: {found}, wanted {claim['wanted']}: {verdict}")
    return [*lines, f"page: {page}"]


def _words(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    if "cannot" in estimate:
        return "cannot say"
    sign = "+" if signed else ""
    return f"{estimate['value']:{sign}.4f} [{estimate['low']:{sign}.4f}, {estimate['high']:{sign}.4f}]"
