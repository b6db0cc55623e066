"""Run benchmarks and print what they found: ``python -m benchmarks [NAME …] [--full] [--write]``.

Small sizes take about a minute each. ``--full`` runs the real sizes; ``--write`` (and ``--full``) keep what was found
in docs/evidence/. The exit code is 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.evidence import PROJECT, commit, page, table

NAMES = tuple(
    path.stem
    for path in sorted((PROJECT / "benchmarks").glob("*.py"))
    if "\ndef run(small: bool)" in path.read_text(encoding="utf-8")
)


def main(arguments: list[str]) -> int:
    """Run the benchmarks named, all of them by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--full", action="store_true", help="the real sizes; writes the evidence")
    parser.add_argument("--write", action="store_true", help="write docs/evidence/NAME.md")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; known: {', '.join(NAMES)}")
    results = [_run(name, full=asked.full, write=asked.write or asked.full) for name in asked.names or NAMES]
    return 0 if all(results) else 1


def _run(name: str, *, full: bool, write: bool) -> bool:
    module = importlib.import_module(f"benchmarks.{name}")
    found = module.run(small=not full)
    print(f"\n{name}\n{table(found['claims'])}", flush=True)
    if write:
        path = PROJECT / "docs" / "evidence" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(name, module.__doc__ or "", found, small=not full, version=commit()), encoding="utf-8")
        print(f"written: {path.relative_to(PROJECT)}", flush=True)
    return all(claim.holds for claim in found["claims"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
