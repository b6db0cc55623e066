"""What a command says, and how: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

MAX_PLAIN_WIDTH = 100  # columns where the output is no terminal


@dataclass(frozen=True)
class Answer:
    """What a command found out.

    document : what ``--json`` prints; shown : what people read instead, lines or Rich tables; code : how it exits
    """

    document: Mapping[str, Any]
    shown: Sequence[Any]
    code: int = 0


def say(answer: Answer, *, as_json: bool, stdout: TextIO) -> None:
    """Print an answer; a line is never wrapped, so that the paths in it can be copied."""
    if as_json:
        stdout.write(json_text(answer.document))
        stdout.flush()
        return
    from rich.console import Console

    width = None if stdout.isatty() else MAX_PLAIN_WIDTH
    console = Console(file=stdout, highlight=False, markup=False, emoji=False, width=width)
    for one in answer.shown:
        console.print(printable(one) if isinstance(one, str) else one, soft_wrap=not _is_table(one))


def say_error(error: Mapping[str, str], *, as_json: bool, stdout: TextIO) -> None:
    """Print an error's four parts: JSON on stdout if that was asked for, else words on stderr."""
    if as_json:
        stdout.write(json_text({"error": error}))
        stdout.flush()
        return
    lines = [f"sameworld: {error['what']}"]
    lines += [f"  {name + ':':<8}{error[name]}" for name in ("got", "wanted", "remedy") if error[name]]
    sys.stderr.write(printable("\n".join(lines)) + "\n")


def json_text(document: Mapping[str, Any]) -> str:
    """Return a document as readable JSON, without NaN."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def printable(text: str) -> str:
    r"""Return text with its control characters written out, so that a log's names cannot steer a terminal.

    >>> printable("an \x1b[31mitem")
    'an \\x1b[31mitem'
    """
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


@contextmanager
def clean_stdout(*, wanted: bool) -> Iterator[TextIO]:
    """Yield the real stdout; if wanted, whatever else prints meanwhile goes to stderr, libraries in C included."""
    stdout = sys.stdout
    if not wanted:
        yield stdout
        return
    sys.stdout = sys.stderr
    try:
        if (
            sys.__stdout__ is None or stdout is not sys.__stdout__
        ):  # somebody captures it: there is no descriptor behind
            yield stdout
            return
        stdout.flush()
        with os.fdopen(os.dup(1), "w", encoding="utf-8") as kept:
            os.dup2(2, 1)
            try:
                yield kept
            finally:
                kept.flush()
                os.dup2(kept.fileno(), 1)
    finally:
        sys.stdout = stdout


def progress(label: str = "") -> Callable[[str, int, int], None]:
    """Return what ``run_day`` calls before each step: a line on stderr, redrawn in place on a terminal."""
    in_place = sys.stderr.isatty()

    def tell(step: str, number: int, of: int) -> None:
        line = printable(f"{label}{number:>3}/{of} {step}")
        sys.stderr.write(f"\r\x1b[2K{line}" if in_place else f"{line}\n")
        sys.stderr.flush()

    return tell


def progress_done() -> None:
    """Leave a line that was redrawn in place."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()


def _is_table(shown: Any) -> bool:
    return type(shown).__name__ == "Table"
