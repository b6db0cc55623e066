"""Reads what the pages say: links, commands, tables, names in code style."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Command:
    """A command of a console block, and what stands below it."""

    words: list[str]
    output: str

    def __str__(self) -> str:
        return " ".join(self.words)


def pages() -> list[Path]:
    """Return every page of ours, sorted; folders that begin with a dot are not ours."""
    folders = [path for path in PROJECT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted([*PROJECT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def linked(page: Path) -> list[str]:
    """Return the relative targets that a page links, without their anchors."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    return [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]


def code_names(text: str) -> set[str]:
    return set(CODE.findall(text))


def rows_below(text: str, header: str) -> list[str]:
    """Return the rows of the table whose header begins so."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = lines[start + 2 :]
    return rows[: next((number for number, line in enumerate(rows) if not line.startswith("|")), len(rows))]


def console_commands(text: str) -> list[Command]:
    """Return the commands of all ``console`` blocks: a line that begins with ``$``, and the lines up to the next."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            found.append(Command(shlex.split(line), output))
    return found


def shortened(output: str) -> str:
    """Return output without what differs from one machine, moment or version of the code to the next."""
    output = re.sub(r"(?:/[\w.-]+)+/\.sameworld|…/\.sameworld", "<root>", output)
    output = re.sub(r"[\d.]+ (?:s|min)\b", "<time>", output)
    return re.sub(r"[0-9a-f]{10,64}|[0-9a-f]{4,}…", "<hex>", output).strip()
