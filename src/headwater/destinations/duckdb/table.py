"""Fitting a row set to a table as it is: pure functions from schemas to SQL.

Rows travel in natural types (docs/decisions/0001-the-road.md); here they meet the table, which may be older, wider,
frozen or changed by hand (protocol-why.md D8):

* a column that the table lacks is added (policy ``evolve``) or kept in ``_unmapped`` (``freeze``);
* a value whose type is not the column's is cast where nothing is lost: to text always, from text by parsing, between
  numbers where the value survives; otherwise it goes to ``_unmapped`` as {"name": value}, and is counted as drift;
* ``name|kind``, a second kind of one name, is cast into the column ``name`` in the same way.

Columns are registered by number (c0, c1, …), so no name of an event ever meets SQL but as a quoted identifier.
DuckDB compares names without case: the second of two names that differ in case only counts as unmapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

UNMAPPED = "_unmapped"
EXAMPLE_CHARS_MAX = 200

WHOLE = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
}
SIMPLE = {
    **WHOLE,
    "float": "FLOAT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "large_string": "VARCHAR",
    "string_view": "VARCHAR",
    "binary": "BLOB",
    "large_binary": "BLOB",
    "date32[day]": "DATE",
    "null": "VARCHAR",
}
NUMBERS = {*WHOLE.values(), "HUGEINT", "UHUGEINT", "FLOAT", "DOUBLE"}
TEXTS = {"VARCHAR", "JSON"}
NESTED = "NESTED"
TIMES = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "DATE"}


def quoted(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def duck_type(field: pa.Field) -> str:
    """The type of a column made for an Arrow field. Times are kept in UTC: TIMESTAMP WITH TIME ZONE."""
    given = given_type(field)
    return "JSON" if given == NESTED else given


def given_type(field: pa.Field) -> str:
    """What DuckDB makes of an Arrow field; text that holds JSON is "JSON"."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    found = SIMPLE.get(str(kind), NESTED)
    is_json = field.metadata is not None and field.metadata.get(b"kind") == b"json"
    return "JSON" if is_json and found == "VARCHAR" else found


@dataclass(frozen=True, slots=True)
class Misfit:
    """Values that may have to go to ``_unmapped``: the column's name, the value, and when (SQL)."""

    column: str
    value: str
    when: str


@dataclass(frozen=True, slots=True)
class Fitting:
    """How the rows of one schema go into one table."""

    columns: tuple[str, ...]
    values: tuple[str, ...]
    misfits: tuple[Misfit, ...]

    def insert(self, table: str, view: str) -> str:
        """The statement."""
        names = ", ".join(map(quoted, self.columns))
        return f"INSERT INTO {quoted(table)} ({names}) SELECT {', '.join(self.values)} FROM {view}"

    def count_misfits(self, view: str) -> str:
        """One row: for each misfit how many values, and one example as text."""
        parts = (
            f"count(*) FILTER ({m.when}), any_value({shortened(m.value)}) FILTER ({m.when})"
            for m in self.misfits
        )
        return f"SELECT {', '.join(parts)} FROM {view}"


def shortened(value: str) -> str:
    """An example of a value, as text."""
    return f"left(CAST({value} AS VARCHAR), {EXAMPLE_CHARS_MAX})"


def missing(schema: pa.Schema, table: Mapping[str, str]) -> dict[str, str]:
    """Columns to add, name → type; ``table`` has lower-case names. ``_unmapped`` is always there."""
    wanted: dict[str, str] = {}
    known = set(table)
    for field in schema:
        name = field.name.partition("|")[0]
        if name.lower() not in known:
            known.add(name.lower())
            wanted[name] = duck_type(field)
    if UNMAPPED not in known:
        wanted[UNMAPPED] = "JSON"
    return wanted


def fit(schema: pa.Schema, table: Mapping[str, str]) -> Fitting:
    """How rows of ``schema`` go into a table with these columns (lower-case name → type)."""
    takes: dict[str, tuple[str, str]] = {}
    misfits: list[Misfit] = []
    sources: dict[str, list[str]] = {}
    own_unmapped = ""
    for index, field in enumerate(schema):
        name, _, variant = field.name.partition("|")
        source, key = f"c{index}", name.lower()
        given = given_type(field)
        kept = f"CAST({source} AS JSON)" if given == "JSON" else source
        if key == UNMAPPED:
            own_unmapped = source
        elif key not in table or (key in takes and takes[key][0] != name) or (key in takes and not variant):
            misfits.append(Misfit(name, kept, f"{source} IS NOT NULL"))
        else:
            value, fits = cast(source, given, table[key])
            takes[key] = (name, value)
            sources.setdefault(key, []).append(value)
            if fits:
                misfits.append(Misfit(name, kept, f"{source} IS NOT NULL AND NOT ({fits})"))
    columns = [takes[key][0] for key in sources]
    values = [v[0] if len(v) == 1 else f"coalesce({', '.join(v)})" for v in sources.values()]
    if misfits or own_unmapped:
        columns.append(UNMAPPED)
        values.append(unmapped(misfits, own_unmapped))
    return Fitting(tuple(columns), tuple(values), tuple(misfits))


def unmapped(misfits: list[Misfit], own: str) -> str:
    """The value of ``_unmapped``: what the rows bring along, and what does not fit; NULL where there is nothing."""
    rest = f"CAST({own} AS JSON)" if own else "NULL"
    if not misfits:
        return rest
    entries = ", ".join(
        f"{{'k': {literal(m.column)}, 'v': CASE WHEN {m.when} THEN to_json({m.value}) END}}" for m in misfits
    )
    here = f"map_from_entries(list_filter([{entries}], lambda x: x.v IS NOT NULL))"
    if own:
        here = f"map_concat(coalesce(CAST(CAST({own} AS JSON) AS MAP(VARCHAR, JSON)), MAP {{}}), {here})"
    some = " OR ".join(f"({m.when})" for m in misfits)
    return f"CASE WHEN {some} THEN to_json({here}) ELSE {rest} END"


def cast(source: str, given: str, wanted: str) -> tuple[str, str]:
    """The value of ``source`` as type ``wanted``, and the condition that it fits ("" where it always does)."""
    if given == wanted:
        return source, ""
    if wanted == "VARCHAR":
        return as_text(source, given), ""
    if wanted == "JSON":
        return f"to_json({source})", ""
    tried = f"TRY_CAST({source} AS {wanted})"
    if given in TEXTS or (given in TIMES and wanted in TIMES):
        return tried, f"{tried} IS NOT NULL"
    if given in NUMBERS and (wanted in NUMBERS or wanted.startswith("DECIMAL")):
        survives = f"coalesce(TRY_CAST({tried} AS {given}) = {source}, false)"
        return f"CASE WHEN {survives} THEN {tried} END", survives
    return f"CAST(NULL AS {wanted})", "false"


def as_text(source: str, given: str) -> str:
    """Any value as text; whole numbers without a fraction, as they were sent."""
    if given in ("DOUBLE", "FLOAT"):
        whole = f"{source} = trunc({source}) AND abs({source}) < 9007199254740992"
        return f"CASE WHEN {whole} THEN CAST(CAST({source} AS BIGINT) AS VARCHAR) ELSE CAST({source} AS VARCHAR) END"
    return f"CAST({source} AS VARCHAR)"
