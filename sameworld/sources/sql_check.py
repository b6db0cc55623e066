"""Which SQL may map a log: one SELECT over ``files`` whose answer depends on the files and their day alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import duckdb

from sameworld.records import Refused

FILES = "files"
WANTED = "one SELECT over the relation files"
TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
# SQL's own words for the clock are read as columns until they are bound.
CLOCKS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
# The first are told the same by every run; the others ask the clock (age of one time), draw or look around although the
# engine calls them consistent.
_SAME = {"error", "getvariable"}
_OTHER = {"age", "getenv", "query", "query_table", "reservoir_quantile", "version"}

Node = Mapping[str, Any]


@cache
def unfit_functions() -> frozenset[str]:
    """Return the functions whose answer depends on more than their arguments, as the engine itself declares them."""
    with duckdb.connect(":memory:") as engine:
        rows = engine.execute("SELECT function_name, stability, macro_definition FROM duckdb_functions()").fetchall()
    unfit = {name for name, stability, _ in rows if stability not in (None, "CONSISTENT")}
    unfit = (unfit | CLOCKS | _OTHER) - _SAME
    looking = re.compile(rf"\b({'|'.join(sorted(unfit))}|duckdb_\w+|pragma_\w+)\b")
    return frozenset(unfit | {name for name, _, body in rows if body and looking.search(body)})


def refuse_unfit_sql(sql: str, name: str) -> None:
    """Raise Refused unless a text is one SELECT that reads ``files`` only and asks no clock, dice or setting.

    name : what to call it in the error

    >>> refuse_unfit_sql("SELECT now() AS shown_at FROM files", "sql/requests.sql")
    Traceback (most recent call last):
    sameworld.records.Refused: sql/requests.sql cannot map a log: got now(); wanted what depends on the rows and their \
day alone. take times from the log; the day is getvariable('day')
    """
    nodes = list(_nodes(_parsed(sql, name)))
    for fault in filter(None, map(_fault, nodes)):
        raise Refused(what=f"{name} cannot map a log", got=fault, wanted="what depends on the rows and their day alone",
                      remedy="take times from the log; the day is getvariable('day')")  # fmt: skip
    for table in sorted(set(_tables(nodes)) - {FILES}):
        raise Refused(what=f"{name} cannot map a log", got=f"a read of {table!r}", wanted=WANTED)


def _parsed(sql: str, name: str) -> Node:
    with duckdb.connect(":memory:") as engine:
        try:
            kinds = [statement.type.name for statement in engine.extract_statements(sql)]
        except duckdb.Error as error:
            raise Refused(what=f"{name} cannot be read", got=first_line(error), wanted=WANTED) from None
        found: Node = json.loads(engine.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if kinds != ["SELECT"] or found["error"]:
        got = " and ".join(kinds) if kinds != ["SELECT"] else str(found["error_message"])
        raise Refused(what=f"{name} cannot map a log", got=got or "no statement", wanted=WANTED)
    return found


def first_line(error: BaseException) -> str:
    """Return what an error of the engine says, without the query's text."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _nodes(tree: Any) -> Iterator[Node]:
    """Yield every mapping of a parsed query; by a list of what waits, since a query may be deeper than the stack."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _fault(node: Node) -> str:
    """Return what makes a part of a query unfit, or nothing."""
    kind = node.get("type")
    if kind == "TABLE_FUNCTION":
        called = str(node["function"]["function_name"]).lower()
        return "" if called in TABLE_FUNCTIONS else f"{called}()"
    if kind == "COLUMN_REF":
        names = [str(part).lower() for part in node["column_names"]]
        return names[0] if len(names) == 1 and names[0] in CLOCKS else ""
    called = str(node.get("function_name", "")).lower()
    return f"{called}()" if called in unfit_functions() else "a sample" if node.get("sample") else ""


def _tables(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the names of the tables that a query reads from outside itself, qualified where it qualifies them."""
    own = {str(entry["key"]).lower() for node in nodes for entry in (node.get("cte_map") or {"map": ()})["map"]}
    for node in nodes:
        if node.get("type") == "BASE_TABLE":
            parts = [node.get("catalog_name"), node.get("schema_name"), node["table_name"]]
            name = ".".join(str(part) for part in parts if part)
            if name.lower() not in own:
                yield FILES if name.lower() == FILES else name
