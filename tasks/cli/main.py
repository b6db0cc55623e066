"""The ``sameworld`` command: one file a command, one place where errors become words and exit codes.

0: finished, whatever the decision; 1: a gate blocked; 2: bad input or usage; 3: not there yet; 130: interrupted;
70: a bug.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

import typer
from typer.exceptions import Abort, TyperException

from sameworld.records import SameworldError
from tasks.cli import backfill, demo, history, init, prove, run_command, score, show
from tasks.cli.console import Answer, clean_stdout, progress_done, say, say_error

INTERRUPTED, BUG, USAGE, CLOSED_PIPE = 130, 70, 2, 141
_NO_ROOM_OR_RIGHT = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EDQUOT)

app = typer.Typer(
    name="sameworld",
    help="Retrain a ranking model every day from production logs, and measure how far the world it trains in is from "
    "the world it serves in.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("init")(init.init)
app.command("demo")(demo.demo)
app.command("run")(run_command.run)
app.command("backfill")(backfill.backfill)
app.command("score")(score.score)
app.command("show")(show.show)
app.command("history")(history.history)
app.command("prove")(prove.prove)


def main() -> None:
    """Run the command line's command and exit."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; results go to stdout, everything else to stderr."""
    # OpenMP threads that spin while they wait make training many times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    as_json = "--json" in arguments
    with clean_stdout(wanted=as_json) as stdout:
        try:
            return _called(arguments, as_json=as_json, stdout=stdout)
        except BrokenPipeError:  # whoever read our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
            return CLOSED_PIPE


def _called(arguments: Sequence[str], *, as_json: bool, stdout: TextIO) -> int:
    try:
        answer = app(args=list(arguments), prog_name="sameworld", standalone_mode=False)
        progress_done()
        if isinstance(answer, Answer):
            say(answer, as_json=as_json, stdout=stdout)
            return answer.code
        return int(answer or 0)  # --help, or an interrupt that Typer turned into its exit code
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        progress_done()
        parts, code = _explained(error, arguments)
        say_error(parts, as_json=as_json, stdout=stdout)
        return code


def _explained(error: Exception, arguments: Sequence[str]) -> tuple[dict[str, str], int]:
    if isinstance(error, SameworldError):
        parts = error.as_record()
        return {**parts, "remedy": parts["remedy"] or _help(arguments)}, error.exit_code
    if isinstance(error, TyperException):
        return _usage(error, arguments), USAGE
    if isinstance(error, OSError) and error.errno in _NO_ROOM_OR_RIGHT:
        got = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        return _parts("the system refuses a file", got, "room and permission", "choose another --root or --out"), USAGE
    traceback.print_exception(error)
    what = f"this is a bug in sameworld: {type(error).__name__}: {error}"
    return _parts(what, "", "no crash", "please report it with the lines above"), BUG


def _help(arguments: Sequence[str]) -> str:
    """Name the help of the command that was asked for: where an error knows no remedy of its own."""
    names = [str(command.name) for command in app.registered_commands if command.name in arguments]
    return " ".join(["sameworld", *names[:1], "--help"])


def _usage(error: TyperException, arguments: Sequence[str]) -> dict[str, str]:
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "sameworld"
    wanted = context.get_usage().removeprefix("Usage: ").strip() if context else "a command of sameworld"
    got = shlex.join(["sameworld", *arguments])
    return _parts(error.format_message(), got, " ".join(wanted.split()), f"{path} --help")


def _parts(what: str, got: str, wanted: str, remedy: str) -> dict[str, str]:
    return {"what": what, "got": got, "wanted": wanted, "remedy": remedy}


if __name__ == "__main__":
    main()
