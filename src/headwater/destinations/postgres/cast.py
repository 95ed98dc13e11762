"""Values of one Arrow column in the type of the column that they go to; null where one would not survive.

All of it is columnar. Only values that a hostile or odd event brings (control characters in text that becomes JSON,
escapes that PostgreSQL's JSONB refuses) are looked at one by one.
"""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.compute as pc

from headwater.destinations.postgres.table import JSONS, TEXTS

WHOLE = frozenset({"int2", "int4", "int8", "numeric"})
FLOATS = frozenset({"float4", "float8"})
TIMES = frozenset({"timestamptz", "timestamp", "date"})
BITS = {"int2": 16, "int4": 32, "int8": 64}
EXACT = 2**53
"""Whole numbers up to here survive as doubles."""
WHOLE_TEXT = r"^-?\d{1,18}$"
NUMBER_TEXT = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?$"
TRUE, FALSE = pa.array(["true", "t", "1"]), pa.array(["false", "f", "0"])
CONTROL = r"[\x00-\x1f]"
REFUSED_ESCAPE = r"\\u(0000|[dD][89a-fA-F])"
ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\."
)
"""Each escape in JSON text, pairs of surrogates as one."""
ZERO = re.compile(b"\0")
REPLACEMENT = "\ufffd"


def fitted(column: pa.Array, given: str, wanted: str) -> pa.Array:
    """The values for a column of type ``wanted``, in the Arrow type that encode.py takes for it."""
    if wanted in TEXTS:
        return as_text(column, given)
    if wanted in JSONS:
        return as_json(column, given)
    if given in TEXTS | JSONS:
        return parsed(column, wanted)
    if wanted in FLOATS and given in FLOATS | WHOLE:
        return as_float(column, given, wanted)
    if wanted in WHOLE and given in FLOATS | WHOLE:
        return as_whole(column, given, wanted)
    if wanted in TIMES and given in TIMES:
        return as_time(column, wanted)
    if given == wanted:
        return column
    return pa.nulls(len(column), pa.string())


def always_fits(given: str, wanted: str) -> bool:
    """Whether no value can be lost."""
    return given == wanted or wanted in TEXTS | JSONS


def as_text(column: pa.Array, given: str) -> pa.Array:
    """Any value as text; whole numbers without a fraction, as they were sent."""
    if given in FLOATS:
        doubles = column.cast(pa.float64())
        whole = pc.and_(pc.equal(doubles, pc.trunc(doubles)), pc.less(pc.abs(doubles), float(EXACT)))
        digits = pc.if_else(whole, doubles, None).cast(pa.int64()).cast(pa.string())
        return pc.coalesce(digits, doubles.cast(pa.string()))
    if given == "bytea":
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
    if pa.types.is_nested(column.type):
        return as_json(column, given)
    return column.cast(pa.string())


def as_json(column: pa.Array, given: str) -> pa.Array:
    """Any value as JSON text."""
    if pa.types.is_nested(column.type):
        values = column.to_pylist()
        texts = [None if value is None else json.dumps(value, default=str) for value in values]
        return pa.array(texts, pa.string())
    text = as_text(column, given)
    if given in JSONS or given == "bool" or given in WHOLE:
        return text
    if given in FLOATS:
        finite = pc.is_finite(column.cast(pa.float64()))
        return pc.if_else(finite, text, as_string(text))
    return as_string(text)


def as_string(text: pa.Array) -> pa.Array:
    """Text as JSON strings."""
    odd = pc.match_substring_regex(text, CONTROL)
    plain = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), '"', '\\"')
    made = pc.binary_join_element_wise('"', plain, '"', "")
    if not pc.any(odd).as_py():
        return made
    spelled = [json.dumps(value, ensure_ascii=False) for value in text.filter(odd).to_pylist()]
    return pc.replace_with_mask(made, pc.fill_null(odd, False), pa.array(spelled, pa.string()))


def parsed(column: pa.Array, wanted: str) -> pa.Array:
    """Text that spells a value of the type."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    if wanted in FLOATS:
        spelled = pc.if_else(pc.match_substring_regex(text, NUMBER_TEXT), text, None)
        number = spelled.cast(pa.float64())
        return as_float(pc.if_else(pc.is_finite(number), number, None), "float8", wanted)
    if wanted in WHOLE:
        spelled = pc.if_else(pc.match_substring_regex(text, WHOLE_TEXT), text, None)
        return as_whole(spelled.cast(pa.int64()), "int8", wanted)
    if wanted == "bool":
        low = pc.utf8_lower(text)
        yes = pc.is_in(low, value_set=TRUE)
        return pc.if_else(pc.or_(yes, pc.is_in(low, value_set=FALSE)), yes, None)
    return pa.nulls(len(column), pa.string())


def as_float(column: pa.Array, given: str, wanted: str) -> pa.Array:
    """Numbers as doubles; as singles where nothing is lost by it."""
    if given in WHOLE:
        within = pc.and_(
            pc.less_equal(column, pa.scalar(EXACT, column.type)),
            pc.greater_equal(column, pa.scalar(-EXACT if signed(column) else 0, column.type)),
        )
        column = pc.if_else(within, column, None)
    doubles = column.cast(pa.float64())
    if wanted == "float8" or given == "float4":
        return doubles
    singles = doubles.cast(pa.float32(), safe=False).cast(pa.float64())
    same = pc.or_(pc.equal(singles, doubles), pc.is_nan(doubles))
    return pc.if_else(same, doubles, None)


def as_whole(column: pa.Array, given: str, wanted: str) -> pa.Array:
    """Numbers as whole ones: u64 stays u64 for NUMERIC, the rest is int64 within the type's bounds."""
    if given in FLOATS:
        doubles = column.cast(pa.float64())
        whole = pc.and_(pc.equal(doubles, pc.trunc(doubles)), pc.less_equal(pc.abs(doubles), float(EXACT)))
        column = pc.if_else(whole, doubles, None).cast(pa.int64())
    if wanted == "numeric":
        return column if column.type == pa.uint64() else column.cast(pa.int64())
    top = 2 ** (BITS[wanted] - 1)
    if column.type == pa.uint64():
        return pc.if_else(pc.less(column, pa.scalar(top, pa.uint64())), column, None).cast(pa.int64())
    wide = column.cast(pa.int64())
    if BITS[wanted] == 64:
        return wide
    return pc.if_else(pc.and_(pc.less(wide, top), pc.greater_equal(wide, -top)), wide, None)


def signed(column: pa.Array) -> bool:
    """Whether its type has negative numbers."""
    return bool(pa.types.is_signed_integer(column.type))


def as_time(column: pa.Array, wanted: str) -> pa.Array:
    """Times, in UTC where no zone is told."""
    if wanted == "date":
        days = column.cast(pa.date32(), safe=False)
        exact = pc.equal(days.cast(pa.timestamp("us")).cast(pa.int64()), micros(column))
        return pc.if_else(exact, days, None)
    return micros(column).cast(pa.timestamp("us"))


def micros(column: pa.Array) -> pa.Array:
    """Times as µs since 1970."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    unit = pa.timestamp("us", column.type.tz)
    return column.cast(unit, safe=False).cast(pa.int64())


def cleaned(column: pa.Array, wanted: str) -> tuple[pa.Array, pa.Array | None]:
    """Text without what PostgreSQL has no room for, which becomes U+FFFD: the character U+0000, in JSONB its escape and
    half surrogates too; and which values changed, None for none."""
    changed = None
    if ZERO.search(values_of(column)):
        changed = pc.fill_null(pc.match_substring(column, "\0"), False)
        column = pc.replace_substring(column, "\0", REPLACEMENT)
    if wanted == "jsonb" and b"\\u" in bytes(values_of(column)):
        odd = pc.fill_null(pc.match_substring_regex(column, REFUSED_ESCAPE), False)
        if pc.any(odd).as_py():
            made = pa.array([without_refused(text) for text in column.filter(odd).to_pylist()], pa.string())
            column = pc.replace_with_mask(column, odd, made)
            changed = odd if changed is None else pc.or_(changed, odd)
    return column, changed


def without_refused(text: str) -> str:
    """JSON text whose escapes JSONB takes."""
    return ESCAPES.sub(kept_escape, text)


def kept_escape(match: re.Match[str]) -> str:
    """An escape, or U+FFFD for one that is refused."""
    found = match[0]
    return REPLACEMENT if len(found) == 6 and found[1] == "u" else found


def values_of(column: pa.Array) -> memoryview:
    """The bytes of all values of a string column, one after the other."""
    data = column.buffers()[2]
    if data is None or not len(column):
        return memoryview(b"")
    ends = memoryview(column.buffers()[1]).cast("i")
    return memoryview(data)[ends[column.offset] : ends[column.offset + len(column)]]
