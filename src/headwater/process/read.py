"""From JSON lines to columns: a fast reading of whole chunks, a tolerant one of the few lines that need it.

The fast reader (arrow-rs through arro3) takes an explicit schema, ignores what it does not know and refuses a chunk
with one odd value. Two things make it exact:

* *The census.* Every key of JSON is followed by a colon, so the number of ``":`` in a chunk, less that of ``":null``,
  is the number of values that are there. If the table holds as many values, nothing was ignored. If not, the chunk is
  surveyed: new paths are learned, lists are taken as text, and the chunk is read again if the schema grew. Text that
  looks like a key only makes a survey happen for nothing.
* *Bisection.* A refused chunk is halved until the odd lines stand almost alone; they are read one by one, where a
  value of an unexpected kind goes to its variant column and a line that is not an event becomes a dead letter.

Both readings give the same values for the same line (a property test holds them to it), so rows do not depend on what
else was in the batch.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import arro3.core
import arro3.io
import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headwater.process.columns import FIELDS, IGNORED_ROOTS, TYPES
from headwater.process.names import ROOTS, Path
from headwater.process.schema import Key, LearnedSchema
from headwater.process.unmapped import Unmapped

Array = np.ndarray[Any, Any]
QUOTE, COLON, LETTER_N, SPACE, NEWLINE = b'":n \n'
CHUNK_LINES = 2000  # arrow-rs is fastest at 1,000-2,500 rows (measured: 3.8 µs per event, 6.5 at 8,000)
SLOW_LINES = 16
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$", re.ASCII)
STRINGS = pa.list_(pa.string())
COUNTED: dict[Path, pa.DataType] = {
    ("integrations", "All"): pa.bool_(),
    ("_metadata", "bundled"): STRINGS,
    ("_metadata", "unbundled"): STRINGS,
    ("_metadata", "bundledIds"): STRINGS,
    ("writeKey",): pa.string(),
}
"""Ignored values of well-known shape: read so that the census agrees, then dropped. A reader adds those it meets."""
COUNTED_MAX = 300


@dataclass(slots=True)
class Parsed:
    """Columns of a number of lines, by name: dotted path of a standard field, or ``@`` and a learned column."""

    lines: int
    columns: dict[str, pa.ChunkedArray | pa.Array] = field(default_factory=dict)
    dead: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Line → (reason, field); its columns are null."""


def dotted(path: Path) -> str:
    """The name of a standard field among the columns."""
    return ".".join(path)


FIELD_NAMES = {dotted(path): kind for path, kind in FIELDS.items()}


def kind_of_name(name: str, schema: LearnedSchema) -> str:
    """The kind of a column of ``Parsed``."""
    if not name.startswith("@"):
        return FIELD_NAMES.get(name, "json")
    column, _, variant = name[1:].partition("|")
    return variant or schema.kind_of[column]


class Reader:
    """Reads lines against the learned schema, which it teaches."""

    def __init__(self, schema: LearnedSchema, *, depth_max: int) -> None:
        self.schema = schema
        self.depth_max = depth_max
        self.version = -1
        self.odd: set[Path] = set()
        """Standard fields that came in an unexpected kind, and ignored values of changing kinds: left out of the fast
        schema, so that one odd sender makes surveys, and not slow reading, of everybody's chunks."""
        self.counted = dict(COUNTED)
        self.arrow: Any = None
        self.names: dict[Path, str] = {}
        self.careful = False
        """Never read fast: the process has died here before (process/worker.py), and the fast reader is not ours."""
        self.fast_lines = 0
        self.slow_lines = 0
        self.unmapped = Unmapped()

    def read(self, lines: Sequence[bytes | memoryview]) -> Parsed:
        """All lines, in order, chunk by chunk. Never raises for what stands in them."""
        parts: list[Parsed] = []
        for at in range(0, len(lines), CHUNK_LINES):
            parts += self._chunk(lines[at : at + CHUNK_LINES])
        return concat(parts)

    def _chunk(self, lines: Sequence[bytes | memoryview]) -> list[Parsed]:
        """One chunk: fast, or in pieces."""
        if len(lines) <= SLOW_LINES // 2:
            fast = self._fast(lines)
            return [fast or self._slow(lines)]
        fast = self._fast(lines)
        if fast is not None:
            return [fast]
        if len(lines) <= SLOW_LINES:
            return [self._slow(lines)]
        step = -(-len(lines) // 4)
        return [part for at in range(0, len(lines), step) for part in self._chunk(lines[at : at + step])]

    def _fast(self, lines: Sequence[bytes | memoryview]) -> Parsed | None:
        """The table of a chunk when every value in it is of the expected kind; None otherwise."""
        data = b"\n".join(lines)
        if self.careful or b"\0" in data or (b"\\" in data and b"\\u0000" in data):
            return None  # arro3 0.9 aborts the process when a NUL stands in its own error message
        for _ in range(3):
            self._refresh()
            try:
                batches = [
                    pa.record_batch(b)
                    for b in arro3.io.read_json(io.BytesIO(data), self.arrow, batch_size=len(lines))
                ]
            except BaseException as error:  # arro3 has no narrower error: any odd value ends the fast reading
                if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                    return None
                raise
            if len(batches) != 1 or batches[0].num_rows != len(lines):
                return None
            parsed = Parsed(len(lines))
            nodes = self._flatten(batches[0], parsed)
            if not _finite(parsed):
                return None
            census = Census(data)
            if census.values == sum(len(node) - node.null_count for node in nodes):
                break
            survey = Survey(self.schema, self.names, self.counted, self.depth_max)
            try:
                survey.read(lines, census.lines_with_more(len(lines), nodes))
            except (msgspec.MsgspecError, RecursionError, ValueError):  # the slow reading says what it is
                return None
            self._count(survey.ignored)
            if not survey.new:
                parsed.columns.update(survey.columns(len(lines)))
                break
            self.schema.learn(survey.new)
            if not self.schema.known(survey.new):
                return None  # no room for them: the slow reading puts them into _unmapped
        else:
            return None
        self.fast_lines += len(lines)
        return parsed

    def _refresh(self) -> None:
        if self.version != self.schema.version:
            self.version = self.schema.version
            tree, self.names = fast_tree(self.schema, self.odd, self.counted)
            self.arrow = arro3.core.Schema.from_arrow(pa.schema(_fields(tree)))

    def _count(self, ignored: Mapping[Path, str]) -> None:
        """Read these ignored values too from now on, for the census."""
        for path, kind in ignored.items():
            if len(self.counted) < COUNTED_MAX and path not in self.odd:
                self.counted[path] = TYPES[kind]
                self.version = -1

    def _leave_out(self, path: Path) -> None:
        """Of the fast schema, from now on."""
        if path not in self.odd:
            self.odd.add(path)
            self.version = -1

    def _check_ignored(self, event: dict[str, Any]) -> None:
        """Ignored values that are not of the kind in which the census reads them."""
        stack: list[tuple[Path, Any]] = [((root,), event[root]) for root in IGNORED_ROOTS if root in event]
        while stack:
            path, value = stack.pop()
            wanted = self.counted.get(path)
            if isinstance(value, dict) and wanted is None and len(path) < self.depth_max:
                stack += [((*path, k), v) for k, v in value.items()]
            elif wanted is not None and value is not None and not readable(value, wanted):
                self._leave_out(path)

    def _flatten(self, batch: pa.RecordBatch, parsed: Parsed) -> list[pa.Array]:
        """Put the leaves into ``parsed``; all arrays with values, objects among them."""
        nodes: list[pa.Array] = []
        stack: list[tuple[Path, pa.Array]] = [
            ((f.name,), batch.column(i)) for i, f in enumerate(batch.schema)
        ]
        while stack:
            path, array = stack.pop()
            if array.null_count == len(array):
                continue
            nodes.append(array)
            if pa.types.is_struct(array.type):
                stack += [((*path, f.name), array.field(i)) for i, f in enumerate(array.type)]
            elif path in self.names:
                parsed.columns[self.names[path]] = array
        return nodes

    def _slow(self, lines: Sequence[bytes | memoryview]) -> Parsed:
        """Line by line; odd values find their place, lines that are no events are dead."""
        self.slow_lines += len(lines)
        objects: list[dict[str, Any] | None] = []
        parsed = Parsed(len(lines))
        wanted: dict[Key, None] = {}
        for number, line in enumerate(lines):
            try:
                value = loads(line)
            except (ValueError, RecursionError) as error:
                parsed.dead[number] = (f"not valid JSON: {error}"[:200], "")
                value = None
            if value is not None and not isinstance(value, dict):
                parsed.dead[number] = (f"expected an object, got {type(value).__name__}", "")
                value = None
            objects.append(value)
            if value is not None:
                for path, kind, _ in walk(value, self.depth_max):
                    if path not in FIELDS:
                        wanted[Key(path, kind)] = None
                    elif kind != FIELDS[path]:
                        self._leave_out(path)
                self._check_ignored(value)
        self.schema.learn(wanted)
        cells: dict[str, list[Any]] = {}
        for number, value in enumerate(objects):
            if value is None:
                continue
            try:
                placed = self._place(value)
            except TooDeep:
                parsed.dead[number] = ("nested too deeply to be kept as JSON text", "")
                continue
            for name, cell in placed.items():
                cells.setdefault(name, [None] * len(lines))[number] = cell
        for name, column in cells.items():
            parsed.columns[name] = pa.array(column, TYPES[kind_of_name(name, self.schema)])
        return parsed

    def _place(self, event: dict[str, Any]) -> dict[str, Any]:
        """The cells of one event by column name."""
        cells: dict[str, Any] = {}
        unmapped: dict[str, Any] = {}
        for path, kind, value in walk(event, self.depth_max):
            if path in FIELDS:
                name: str | None = dotted(path)
                fitted = fit(value, kind, FIELDS[path])
            else:
                name, fitted = place(self.schema, path, kind, value)
            if name is None or fitted is None:
                unmapped[dotted(path)] = value
                self.unmapped.note(dotted(path), value)
            else:
                cells[name] = fitted
        if unmapped:
            cells["_unmapped"] = text_of(unmapped)
        return cells


def loads(line: bytes | memoryview) -> Any:
    """A value of JSON. Numbers beyond a double become text: the fast reader takes them where nobody reads them, and a
    line must be an event or not whatever stands beside it. ValueError where it is not JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):
            raise
    value = json.loads(bytes(line), parse_float=finite, parse_int=whole, parse_constant=refuse)
    orjson.dumps(value)  # what orjson would not read otherwise: lone surrogates
    return value


def finite(text: str) -> float | str:
    """A number, or its text where no double holds it."""
    number = float(text)
    return number if math.isfinite(number) else text


def whole(text: str) -> int | float | str:
    """A whole number as orjson reads it, or its text where no double holds it."""
    return int(text) if len(text) < len(str(1 << 63)) else finite(text)


def refuse(text: str) -> None:
    """ValueError: what Python takes for JSON, and JSON does not."""
    raise ValueError(f"unexpected {text}")


def place(schema: LearnedSchema, path: Path, kind: str, value: Any) -> tuple[str | None, Any]:
    """Column and cell of a value of a learned path; text that spells a number goes where numbers are."""
    if kind == "text" and schema.first_kind.get(path) == "number":
        number = fit(value, kind, "number")
        if number is not None:
            return f"@{schema.column(path, 'number')}", number
    name = schema.column(path, kind)
    return (f"@{name}" if name is not None else None), fit(value, kind, kind)


class Census:
    """How many values other than null stand in JSON text, if no text in it looks like a key (see the module)."""

    def __init__(self, data: bytes) -> None:
        self.text = text = np.frombuffer(data, np.uint8)
        quote, colon, space = text == QUOTE, text == COLON, text <= SPACE
        self.key = key = quote[:-2] & colon[1:-1]
        """Where a quote with a colon behind it stands."""
        self.nulls = int(np.count_nonzero(key & (text[2:] == LETTER_N)))
        before = space[1:-1] & colon[2:]
        self.unsafe = (before.any() and bool((before & (space | quote)[:-2]).any())) or self._behind(
            key & space[2:]
        )
        """White space before a colon, or much of it behind one, makes counting impossible: the survey decides."""
        self.values = -1 if self.unsafe else int(np.count_nonzero(key)) - self.nulls

    def _behind(self, spaced: Array) -> bool:
        """Count nulls behind one space; True where there is more than one."""
        if not spaced.any():
            return False
        at = np.flatnonzero(spaced) + 3
        if at[-1] >= len(self.text):
            return True
        self.nulls += int(np.count_nonzero(self.text[at] == LETTER_N))
        return bool((self.text[at] <= SPACE).any())

    def lines_with_more(self, lines: int, nodes: Iterable[pa.Array]) -> Iterable[int]:
        """Numbers of the lines that hold other values than the table."""
        if self.unsafe:
            return range(lines)
        keys = np.flatnonzero(self.key)
        after = self.text[keys + 2]
        after = np.where(after <= SPACE, self.text[np.minimum(keys + 3, len(self.text) - 1)], after)
        ends = np.flatnonzero(self.text == NEWLINE)
        there = np.bincount(np.searchsorted(ends, keys[after != LETTER_N]), minlength=lines)
        for node in nodes:
            there -= np.asarray(node.is_valid()) if node.null_count else 1
        return [int(n) for n in np.flatnonzero(there)]


def readable(value: Any, dtype: pa.DataType) -> bool:
    """Whether the fast reader takes a value for this type."""
    if dtype.equals(STRINGS):
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    kinds: dict[Any, tuple[type, ...]] = {
        pa.string(): (str,),
        pa.bool_(): (bool,),
        pa.float64(): (int, float),
    }
    return isinstance(value, kinds[dtype]) and (dtype.equals(pa.bool_()) or not isinstance(value, bool))


def fit(value: Any, kind: str, wanted: str) -> Any:
    """A value as the kind that a column has; None when it does not fit."""
    if wanted == "number" and (kind == "number" or (kind == "text" and NUMBER.match(value))):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    if wanted == "json" or (wanted == "text" and kind in ("number", "boolean")):
        return text_of(value)
    return value if kind == wanted else None


class TooDeep(ValueError):
    """A value that can be read, but is nested too deeply to be written as text again (orjson: 1,024 against 254)."""


def text_of(value: Any) -> str:
    """JSON text; integers beyond 64 bits too."""
    try:
        return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME, default=str).decode()
    except orjson.JSONEncodeError as error:
        raise TooDeep(str(error)) from error


def walk(event: dict[str, Any], depth_max: int) -> list[tuple[Path, str, Any]]:
    """The values of an event that become cells: (path, kind, value). Objects are entered to ``depth_max``."""
    found: list[tuple[Path, str, Any]] = []
    stack: list[tuple[Path, Any]] = [((k,), v) for k, v in event.items() if k not in IGNORED_ROOTS]
    while stack:
        path, value = stack.pop()
        if value is None:
            continue
        if isinstance(value, dict):
            depth = len(path) - (path[0] in ROOTS)
            if depth < depth_max:
                stack += [((*path, k), v) for k, v in value.items()]
            else:
                found.append((path, "json", value))
        elif isinstance(value, bool):
            found.append((path, "boolean", value))
        elif isinstance(value, int | float):
            found.append((path, "number", value))
        elif isinstance(value, str):
            found.append((path, "text", value))
        else:
            found.append((path, "json", value))
    return found


def fast_tree(
    schema: LearnedSchema, odd: Container[Path], counted: Mapping[Path, pa.DataType]
) -> tuple[dict[str, Any], dict[Path, str]]:
    """The nested schema of the fast reader, and the column name of each leaf.

    Only paths with one kind are in it: the fast reader refuses a whole chunk for one value of another. A path that is
    both a value and an object is left out too; the survey finds their values.
    """
    mixed = schema.mixed()
    tree: dict[str, Any] = {"integrations": {}, "properties": {}, "traits": {}, "context": {}}
    names: dict[Path, str] = {}
    for path, kind in FIELDS.items():
        if path not in odd:
            _plant(tree, path, TYPES[kind])
            names[path] = dotted(path)
    for path, dtype in counted.items():
        if path not in odd:
            _plant(tree, path, dtype)
    for path, kind in schema.first_kind.items():
        single = kind != "json" and not any(path[:n] in mixed for n in range(1, len(path) + 1))
        if single and _plant(tree, path, TYPES[kind]):
            names[path] = f"@{schema.column(path, kind)}"
    return tree, names


def _plant(tree: dict[str, Any], path: Path, dtype: pa.DataType) -> bool:
    at = tree
    for part in path[:-1]:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            return False
    return at.setdefault(path[-1], dtype) is dtype


def _fields(tree: dict[str, Any]) -> list[pa.Field]:
    return [pa.field(k, pa.struct(_fields(v)) if isinstance(v, dict) else v) for k, v in tree.items()]


def _finite(parsed: Parsed) -> bool:
    """False when text such as "NaN" was read as a number."""
    for array in parsed.columns.values():
        if pa.types.is_floating(array.type) and not math.isfinite(pc.sum(array).as_py() or 0.0):
            return False  # or honest numbers whose sum is too large: then the slow reading sorts it out
    return True


class Survey:
    """What a chunk holds beyond the fast schema: paths to learn, and the values that the fast reader left out."""

    def __init__(
        self, schema: LearnedSchema, fast: Container[Path], counted: Container[Path], depth_max: int
    ) -> None:
        self.schema = schema
        self.fast = fast
        self.counted = counted
        self.ignored: dict[Path, str] = {}
        """Ignored values that the census did not know: path → kind."""
        self.depth_max = depth_max
        self.new: dict[Key, None] = {}
        self.cells: dict[str, list[tuple[int, Any]]] = {}
        self.decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def read(self, lines: Sequence[bytes | memoryview], numbers: Iterable[int]) -> None:
        """Look at the lines of these numbers. Raises msgspec's errors for what the slow reading must judge."""
        for number in numbers:
            stack: list[tuple[Path, Any]] = [((), lines[number])]
            while stack:
                path, raw = stack.pop()
                for key, value in self.decoder.decode(raw).items():
                    here = (*path, key)
                    if here in self.fast or here in self.counted:
                        continue
                    start = bytes(memoryview(value)[:1])
                    if here[0] in IGNORED_ROOTS:
                        if start == b"{" and len(here) < self.depth_max:
                            stack.append((here, value))
                        elif KINDS.get(start, "json") != "json":
                            self.ignored[here] = KINDS[start]
                    elif start == b"{" and len(here) - (here[0] in ROOTS) < self.depth_max:
                        stack.append((here, value))
                    elif start != b"n":
                        self._value(number, here, KINDS[start], value)

    def columns(self, lines: int) -> dict[str, pa.Array]:
        """The values that the fast reader left out."""
        columns = {}
        for name, found in self.cells.items():
            cells: list[Any] = [None] * lines
            for number, value in found:
                cells[number] = value
            columns[name] = pa.array(cells, TYPES[kind_of_name(name, self.schema)])
        return columns

    def _value(self, number: int, path: Path, kind: str, raw: Any) -> None:
        if path in FIELDS:
            name: str | None = dotted(path)
            value = fit(loads(bytes(raw)), kind, FIELDS[path])
        elif Key(path, kind) in self.schema.entries:
            name, value = place(self.schema, path, kind, loads(bytes(raw)))
        else:
            self.new[Key(path, kind)] = None
            return
        if name is None or value is None:
            raise msgspec.ValidationError("a value without a place: for the slow reading")
        self.cells.setdefault(name, []).append((number, value))


KINDS = {
    b'"': "text",
    b"[": "json",
    b"{": "json",
    b"t": "boolean",
    b"f": "boolean",
    **{str(d).encode(): "number" for d in range(10)},
    b"-": "number",
}


def concat(parts: Sequence[Parsed]) -> Parsed:
    """The columns of all parts under each other; what a part lacks is null."""
    whole = Parsed(sum(p.lines for p in parts))
    types: dict[str, pa.DataType] = {}
    for part in parts:
        for name, array in part.columns.items():
            types.setdefault(name, array.type)
    for name, dtype in types.items():
        arrays = [p.columns[name] if name in p.columns else pa.nulls(p.lines, dtype) for p in parts]
        whole.columns[name] = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
    at = 0
    for part in parts:
        whole.dead |= {at + n: why for n, why in part.dead.items()}
        at += part.lines
    return whole
