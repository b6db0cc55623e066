"""The tables that a drop may hold, as data: each column's kind, whether it may be null, each table's key and times."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

from sameworld.records import Blocked
from sameworld.store.log import VIEW_PREFIX

Kind: TypeAlias = Literal["text", "time", "double", "int32", "int64", "bool", "reasons", "candidates"]
FeatureKind: TypeAlias = Literal["number", "bool", "string"]

TIME = pl.Datetime("us", "UTC")
REASONS = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))
CANDIDATES = pl.List(pl.Struct({"item_id": pl.String, "score": pl.Float64}))
DTYPES: dict[Kind, pl.DataType] = {
    "text": pl.String(),
    "time": TIME,
    "double": pl.Float64(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "bool": pl.Boolean(),
    "reasons": REASONS,
    "candidates": CANDIDATES,
}
WANTED: dict[Kind, str] = {
    "text": "string",
    "time": "timestamp[us, UTC]",
    "double": "double",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "reasons": "map<string, string>",
    "candidates": "list<struct<item_id: string, score: double>>",
}
FEATURE = "x_"
VIEW_KEYS = ("user_id", "item_id")


@dataclass(frozen=True)
class Column:
    """A column of the contract. One that may not be null must be there; another is null where it is missing.

    default : what null stands for; nan_is_null : whether NaN says that the value is not known
    """

    name: str
    kind: Kind
    nullable: bool = True
    default: bool | None = None
    nan_is_null: bool = True


@dataclass(frozen=True)
class Layout:
    """A table of the contract.

    columns : all but the features; key : together unique; event : when it happened, if rows say so; arrival : when the
    log first had a row (None: a view's rows arrive in their folder's day); free : whether every other column is a
    feature, not only those that begin with ``x_``
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event: str | None = None
    arrival: str | None = "arrived_at"
    free: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The text columns whose text is checked: what rows are joined by."""
        joined = {"request_id", "item_id", "user_id", "kind"}
        return tuple(column.name for column in self.columns if column.name in joined)

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that must be there, without nulls."""
        return tuple(column.name for column in self.columns if not column.nullable)

    def has(self, name: str) -> bool:
        """Say whether a column is one of the contract's."""
        return any(column.name == name for column in self.columns)

    def is_feature(self, name: str) -> bool:
        """Say whether a column that is not the contract's is a feature."""
        return self.free or name.startswith(FEATURE)


def _columns(*, required: dict[str, Kind], optional: dict[str, Kind]) -> tuple[Column, ...]:
    return (
        *(Column(name, kind, nullable=False) for name, kind in required.items()),
        *(Column(name, kind) for name, kind in optional.items()),
    )


REQUESTS = Layout(
    "requests",
    _columns(
        required={"request_id": "text", "shown_at": "time", "arrived_at": "time"},
        optional={
            "user_id": "text",
            "surface": "text",
            "arm": "text",
            "policy_id": "text",
            "model_version": "text",
            "branch": "text",
            "tau": "double",
            "epsilon": "double",
            "seed": "int64",
            "candidates": "candidates",
        },
    ),
    key=("request_id",),
    event="shown_at",
)
IMPRESSIONS = Layout(
    "impressions",
    _columns(
        required={
            "request_id": "text",
            "item_id": "text",
            "position": "int32",
            "shown_at": "time",
            "arrived_at": "time",
        },
        optional={"user_id": "text", "propensity": "double", "null_reason": "reasons"},
    ),
    key=("request_id", "item_id"),
    event="shown_at",
)
CANDIDATES_TABLE = Layout(
    "candidates",
    _columns(
        required={"request_id": "text", "item_id": "text", "arrived_at": "time"}, optional={"null_reason": "reasons"}
    ),
    key=("request_id", "item_id"),
)
OUTCOMES = Layout(
    "outcomes",
    (
        *_columns(
            required={
                "request_id": "text",
                "item_id": "text",
                "kind": "text",
                "happened_at": "time",
                "arrived_at": "time",
            },
            optional={},
        ),
        # Null means 1, but a row that says 1 is another row than one that says nothing: the log fills it in when read.
        Column("value", "double", nan_is_null=False),
        Column("retracted", "bool", default=False),
    ),
    # A retraction is a row beside the first, so whether it is one belongs to the key.
    key=("request_id", "item_id", "kind", "happened_at", "retracted"),
    event="happened_at",
)
LAYOUTS = {layout.name: layout for layout in (REQUESTS, IMPRESSIONS, OUTCOMES, CANDIDATES_TABLE)}


def layout_of(table: str, names: Collection[str]) -> Layout:
    """Return a table's layout; a view's depends on which keys its columns name.

    names : the columns that its files hold

    >>> layout_of("features.item_stats", ["item_id", "available_at", "ctr"]).key
    ('item_id', 'available_at')
    """
    if not table.startswith(VIEW_PREFIX):
        return LAYOUTS[table]
    keys = tuple(key for key in VIEW_KEYS if key in names)
    if not keys:
        raise Blocked(what=f"view {table} has no key: got {', '.join(sorted(names))}; wanted user_id or item_id")
    required: dict[str, Kind] = {**dict.fromkeys(keys, "text"), "available_at": "time"}
    columns = _columns(required=required, optional={})
    return Layout(table, columns, (*keys, "available_at"), event=None, arrival=None, free=True)


def is_text(dtype: pl.DataType) -> bool:
    """Say whether a column is text of any Arrow kind: strings, large strings, views, or dictionaries of them."""
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def feature_kind(dtype: pl.DataType) -> FeatureKind | None:
    """Return what a feature's column holds, or None where it is of no kind that a feature may have.

    >>> feature_kind(pl.Float32()), feature_kind(pl.Date())
    ('number', None)
    """
    if dtype.is_float() or dtype.is_integer():
        return "number"
    if isinstance(dtype, pl.Boolean):
        return "bool"
    return "string" if is_text(dtype) else None


def fits(kind: Kind, dtype: pl.DataType) -> bool:
    """Say whether a file's column may stand for a column of the contract; nothing is cast from text, or to it."""
    if isinstance(dtype, pl.Null):
        return True
    if kind in ("int32", "int64"):
        return dtype.is_integer()
    if kind == "double":
        return dtype.is_float() or dtype.is_integer()
    if kind == "reasons":
        return _is_reasons(dtype)
    if kind == "candidates":
        return _is_candidates(dtype)
    wanted: dict[str, bool] = {
        "text": is_text(dtype),
        "time": isinstance(dtype, pl.Datetime),
        "bool": isinstance(dtype, pl.Boolean),
    }
    return wanted[kind]


def _is_reasons(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Map):
        dtype = pl.List(pl.Struct({"key": dtype.key, "value": dtype.value}))
    fields = _fields(dtype)
    return set(fields) == {"key", "value"} and all(is_text(one) or isinstance(one, pl.Null) for one in fields.values())


def _is_candidates(dtype: pl.DataType) -> bool:
    fields = _fields(dtype)
    return (
        {"item_id", "score"} <= set(fields)
        and is_text(fields["item_id"])
        and (fields["score"].is_float() or fields["score"].is_integer() or isinstance(fields["score"], pl.Null))
    )


def _fields(dtype: pl.DataType) -> dict[str, pl.DataType]:
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    return {field.name: _instance(field.dtype) for field in inner.fields} if isinstance(inner, pl.Struct) else {}


def _instance(dtype: object) -> pl.DataType:
    made = dtype() if isinstance(dtype, type) else dtype
    return made if isinstance(made, pl.DataType) else pl.Null()
