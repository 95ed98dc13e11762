"""Fitting a row set to a table as it is: pure functions from schemas to what goes where.

The rules are the DuckDB adapter's (docs/reference/columns.md): a column that the table lacks is added (``evolve``) or
kept in ``_unmapped`` (``freeze``), a value that the column's type cannot hold without loss goes to ``_unmapped``, and
``name|kind``, a second kind of one name, is cast into the column ``name``. What is PostgreSQL's own:

* a name has at most 63 bytes, and six names are the server's (``xmin`` …): such a column is called otherwise, by a
  name that ends in a hash of the whole, so that two that begin alike stay two columns;
* a table has at most 1,600 columns, dropped ones among them: what is beyond stands in ``_unmapped``;
* it has no unsigned types: u64 is NUMERIC(20), u32 is BIGINT, u16 is INTEGER.

Values are cast by this process (cast.py), since COPY takes the exact type of the column; a column of a type that is
not in ``KINDS`` is left alone, and its values stand in ``_unmapped``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from xxhash import xxh3_64_hexdigest

UNMAPPED = "_unmapped"
NAME_BYTES_MAX = 63
HASH_CHARACTERS = 8
COLUMNS_MAX = 1600
SYSTEM = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})

DECLARED = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "numeric": "numeric(20)",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "text": "text",
    "jsonb": "jsonb",
    "bytea": "bytea",
    "date": "date",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
}
"""Type as the catalogue calls it → as a new column is declared."""
TEXTS = frozenset({"text", "varchar", "bpchar"})
JSONS = frozenset({"json", "jsonb"})
KINDS = frozenset({*DECLARED, *TEXTS, *JSONS})
"""Types that values are written in."""
MADE = {
    "int8": "int2",
    "uint8": "int2",
    "int16": "int2",
    "uint16": "int4",
    "int32": "int4",
    "uint32": "int8",
    "int64": "int8",
    "uint64": "numeric",
    "float": "float4",
    "double": "float8",
    "bool": "bool",
    "string": "text",
    "large_string": "text",
    "string_view": "text",
    "binary": "bytea",
    "large_binary": "bytea",
    "date32[day]": "date",
    "null": "text",
}
"""Arrow type → type of the column that is made for it; JSON for all others."""


def quoted(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def own_name(name: str) -> str:
    """What a column is called here; another name always gives another one."""
    if len(name.encode()) <= NAME_BYTES_MAX and name not in SYSTEM:
        return name
    cut = name.encode()[: NAME_BYTES_MAX - HASH_CHARACTERS - 1].decode(errors="ignore")
    return f"{cut}_{xxh3_64_hexdigest(name.encode())[:HASH_CHARACTERS]}"


def pg_type(field: pa.Field) -> str:
    """The type of a column made for an Arrow field, as the catalogue calls it."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    found = MADE.get(str(kind), "jsonb")
    is_json = field.metadata is not None and field.metadata.get(b"kind") == b"json"
    return "jsonb" if is_json and found == "text" else found


@dataclass(frozen=True, slots=True)
class Source:
    """A column of the row set: where it stands, the column's name for people, and the type of its values."""

    index: int
    name: str
    given: str


@dataclass(frozen=True, slots=True)
class Target:
    """A column of the table and what goes into it; of several sources the first that has a value counts."""

    name: str
    kind: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Fitting:
    """How the rows of one schema go into one table."""

    targets: tuple[Target, ...]
    strays: tuple[Source, ...]
    """Without a column: all of their values are unmapped."""
    own: Source | None
    """``_unmapped`` as the rows bring it along."""
    unmapped_kind: str
    """Type of the table's ``_unmapped``; empty where it has none that takes JSON."""


def missing(schema: pa.Schema, table: Mapping[str, str]) -> dict[str, str]:
    """Columns to add, name → type, ``_unmapped`` first: it takes what the table has no room for."""
    wanted = {} if UNMAPPED in table else {UNMAPPED: "jsonb"}
    for field in schema:
        name = own_name(field.name.partition("|")[0])
        if name not in table and name not in wanted:
            wanted[name] = pg_type(field)
    return wanted


def fit(schema: pa.Schema, table: Mapping[str, str]) -> Fitting:
    """How rows of ``schema`` go into a table with these columns (name → type in the catalogue)."""
    taken: dict[str, list[Source]] = {}
    strays: list[Source] = []
    own: Source | None = None
    for index, field in enumerate(schema):
        name, _, variant = field.name.partition("|")
        source, column = Source(index, name, pg_type(field)), own_name(name)
        before = taken.get(column)
        if name == UNMAPPED:
            own = source
        elif table.get(column) not in KINDS or (before and (before[0].name != name or not variant)):
            strays.append(source)
        else:
            taken.setdefault(column, []).append(source)
    targets = tuple(Target(name, table[name], tuple(sources)) for name, sources in taken.items())
    kind = table.get(UNMAPPED, "")
    return Fitting(targets, tuple(strays), own, kind if kind in JSONS | TEXTS else "")
