"""A configuration file as plain data with the place of every value.

YAML with one addition: ``${env.NAME}`` and ``${env.NAME|default}`` inside any text stand for an environment variable
(``$${`` is a plain ``${``). What is replaced stays text; numbers are read from text where a number is expected, so a
value reads the same quoted or not. A key that stands twice in one block is refused: YAML would take the last
silently.

Every complaint is Misconfigured and names the file, the line, the key, what was expected and, for an unknown key, the
nearest known one.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec
import yaml

from headwater.config import docs
from headwater.kit.errors import HeadwaterError, Misconfigured

TEMPLATE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
ENVIRONMENT = re.compile(r"env\.([A-Za-z_][A-Za-z0-9_]*)(?:\|(.*))?", re.S)
AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.S)
STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")
WRONG_TYPE = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<got>[^`]+)`")
WORDS = {
    "int": "integer",
    "float": "number",
    "str": "text",
    "bool": "true | false",
    "array": "a list",
    "object": "a block of `key: value`",
    "null": "nothing",
    "datetime": "a time",
    "date": "a date",
}
"""msgspec's names of types in the words of the documents (config/docs.py)."""
SCALARS = ("int", "float", "bool", "datetime", "date")
SHOWN_MAX = 80
"""Characters of a value that is shown in a complaint."""
BYTES_MAX = 4 * 1024 * 1024

Path = tuple[str | int, ...]
S = TypeVar("S", bound=msgspec.Struct)


class Place(NamedTuple):
    """Where a value came from."""

    line: int
    variables: tuple[str, ...] = ()
    """Environment variables that it was made of."""
    defaults: tuple[str, ...] = ()
    """Those that were not set, so that the text after ``|`` was taken."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read."""

    name: str
    data: dict[str, Any]
    places: Mapping[Path, Place] = field(default_factory=dict)

    def place(self, path: Path) -> Place | None:
        """The place of a value, or of the nearest block around it that stands in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return None

    def where(self, path: Path) -> str:
        """``headwater.yaml:7``, or the file's name alone."""
        place = self.place(path)
        return f"{self.name}:{place.line}" if place else self.name

    @contextlib.contextmanager
    def placed(self, below: Path = ()) -> Iterator[None]:
        """Errors from inside that name a ``field`` get the place at which it stands in this file."""
        try:
            yield
        except HeadwaterError as error:
            key = str(error.fields.get("field", ""))
            path = named_path(self, key, below)
            raise Misconfigured(
                f"{self.where(path)}: {error.message}", code="configuration", help=error.help, key=key
            ) from error


class Reader:
    """Builds data from YAML nodes, remembering places."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.places: dict[Path, Place] = {}
        self.loader = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of a node."""
        line = node.start_mark.line + 1
        self.places[path] = Place(line)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:str" or "${" in node.value:
            return self.filled(node.value, path, line)
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.wrong(path, line, f"cannot be read: {error}") from error

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """A block; each key once, each key text."""
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key == "<<":
                raise self.wrong(path, line, "a key must be plain text")
            if key in found:
                first = self.places[(*path, key)].line
                raise self.wrong((*path, key), line, f"stands twice; the first is in line {first}")
            found[key] = self.value(value_node, (*path, key))
            if not isinstance(value_node, yaml.ScalarNode):  # for a block, the line of its name tells more
                self.places[(*path, key)] = Place(line)
        return found

    def filled(self, text: str, path: Path, line: int) -> str:
        """Text with its templates replaced."""
        used: list[str] = []
        defaulted: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match[1] is None:
                return "${"
            variable = ENVIRONMENT.fullmatch(match[1])
            if variable is None:
                raise self.wrong(
                    path, line, f"`{match[0]}` is no template", "write ${env.NAME} or ${env.NAME|default}"
                )
            name, default = variable[1], variable[2]
            used.append(name)
            if name in self.environment:
                return self.environment[name]
            if default is None:
                raise self.wrong(
                    path,
                    line,
                    f"the environment variable {name} is not set",
                    f"or write ${{env.{name}|default}}",
                )
            defaulted.append(name)
            return default

        result = TEMPLATE.sub(replace, text)
        if used:
            self.places[path] = Place(line, tuple(used), tuple(defaulted))
        return result

    def wrong(self, path: Path, line: int, what: str, help: str = "") -> Misconfigured:
        return Misconfigured(
            f"{self.name}:{line}: {key_text(path)}: {what}" if path else f"{self.name}:{line}: {what}",
            code="configuration",
            help=help,
            key=key_text(path),
        )


def read(text: str, name: str, environment: Mapping[str, str]) -> Document:
    """Data and places of a configuration file's text; an empty file is an empty block."""
    if len(text) > BYTES_MAX:
        raise Misconfigured(f"{name} is larger than {BYTES_MAX} bytes", code="configuration")
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        help = "text with `{`, `}`, `:` or `#` must be quoted" if "${" in text else ""
        raise Misconfigured(
            f"{name}:{line}: not YAML: {error.problem}", code="configuration", help=help
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Misconfigured(f"{name}: not YAML: {error}", code="configuration") from error
    if node is None:
        return Document(name, {})
    reader = Reader(name, environment)
    try:
        data = reader.value(node, ())
    except RecursionError:
        raise Misconfigured(f"{name}: nested too deeply", code="configuration") from None
    if not isinstance(data, dict):
        raise Misconfigured(f"{name}:1: expected a block of `key: value`", code="configuration")
    return Document(name, data, reader.places)


def convert(document: Document, data: Any, struct: type[S], below: Path = ()) -> S:
    """``data``, which stands at ``below`` in the document, as settings. Misconfigured says what is wrong, where."""
    try:
        with document.placed(below):
            return msgspec.convert(data, struct, strict=False)
    except msgspec.ValidationError as error:
        raise translated(document, str(error), data, struct, below) from error


def translated(document: Document, text: str, data: Any, struct: docs.Struct, below: Path) -> Misconfigured:
    """msgspec's words with the place, and the nearest known key."""
    match = AT.match(text)
    assert match is not None
    inside = with_name(steps(match["path"] or ""), data, struct, text)
    what, help = match["what"], ""
    if unknown := re.search(r"unknown field `(.*)`", what):
        known = known_keys(struct, inside, data)
        near = difflib.get_close_matches(unknown[1], known, 1, 0.6)
        what = "unknown key"
        help = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        inside = (*inside, unknown[1])
    elif missing := re.search(r"missing required field `(.*)`", what):
        what = f"`{missing[1]}` is missing"
    elif wrong_type := WRONG_TYPE.fullmatch(what):
        expected = wrong_type["expected"].split(" | ")
        got = WORDS.get(wrong_type["got"], wrong_type["got"])
        if not {"array", "object"} & {*expected}:
            got = shown(document, data, below, inside, got)
        what = f"expected {' | '.join(WORDS.get(kind, kind) for kind in expected)}, got {got}"
        help = "in quotes it is text" if "str" in expected and wrong_type["got"] in SCALARS else ""
    else:
        what = what[0].lower() + what[1:]
        if "enum value" in what and (kind := type_of(struct, inside, data)):
            help = f"expected {kind}"
        elif what.startswith("invalid value") and (kinds := kinds_at(struct, inside)):
            help = f"expected {' | '.join(kinds)}"
        own = re.match(r"(\w+): (.+)", what, re.S)  # a struct's own check names its field
        if own and own[1] in known_keys(struct, inside, data):
            inside, what = (*inside, own[1]), own[2]
    path = (*below, *inside)
    key = key_text(path)
    where = document.where(path)
    return Misconfigured(
        f"{where}: {key}: {what}" if key else f"{where}: {what}", code="configuration", help=help, key=key
    )


def shown(document: Document, data: Any, below: Path, inside: Path, word: str) -> str:
    """The value at ``inside`` in ``data`` behind the word for its type. The word alone where it could be a secret: by
    its name, or because it came from the environment."""
    value = data
    for step in inside:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return word
    place = document.places.get((*below, *inside))
    hidden = any(docs.is_secret(step) for step in inside if isinstance(step, str))
    if not isinstance(value, str | int | float) or hidden or place is None or place.variables:
        return word
    value = docs.without_password(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{word} {value!r}" if len(str(value)) <= SHOWN_MAX else word


def with_name(path: Path, data: Any, struct: docs.Struct, text: str) -> Path:
    """The path with the name of a block in a mapping, which msgspec leaves out: of the block that alone is refused with
    the same words."""
    if "*" not in path:
        return path
    at = path.index("*")
    block = data
    for step in path[:at]:
        block = block[step]
    for name in block:
        try:
            msgspec.convert(with_only(data, path[:at], name), struct, strict=False)
        except msgspec.ValidationError as error:
            if str(error) == text:
                return (*path[:at], name, *path[at + 1 :])
        except HeadwaterError:
            continue
    return path


def with_only(data: Any, path: Path, name: str) -> Any:
    """Data whose mapping at ``path`` has one entry."""
    if not path:
        return {name: data[name]}
    return {**data, path[0]: with_only(data[path[0]], path[1:], name)}


def kinds_at(struct: docs.Struct, path: Path) -> list[str]:
    """The tags that may stand at ``path``: of a block, or of a block with a name; empty where it is no tag."""
    for above, block in ((path[:-2], path[-2:-1]), (path[:-3], path[-3:-2])):
        known = struct_at(struct, above)
        types = [field.type for field in docs.fields(known) if (field.name,) == block] if known else []
        structs = docs.structs_in(types[0]) if types else []
        if tags := [s.__struct_config__.tag for s in structs if s.__struct_config__.tag_field == path[-1]]:
            return [str(tag) for tag in tags]
    return []


def known_keys(struct: docs.Struct | None, path: Path, data: Any = None) -> list[str]:
    """The keys that may stand in the block at ``path``."""
    known = struct_at(struct, path, data)
    return [field.name for field in docs.fields(known)] if known else []


def struct_at(struct: docs.Struct | None, path: Path, data: Any = None) -> docs.Struct | None:
    """The struct of the block at ``path``; where there are several kinds, the one that ``data`` says it is."""
    kinds = [] if struct is None else [struct]
    for step in path:
        if kinds and isinstance(step, str):
            found = [field for field in docs.fields(kind_of(kinds, data)) if field.name == step]
            kinds = docs.structs_in(found[0].type) if found else kinds
        data = inner(data, step)
    return kind_of(kinds, data) if kinds else None


def inner(data: Any, step: str | int) -> Any:
    """What stands at a step of a path, if anything."""
    try:
        return data[step]
    except (KeyError, IndexError, TypeError):
        return None


def kind_of(kinds: Sequence[docs.Struct], data: Any) -> docs.Struct:
    """The one of several kinds whose tag a block has; the first where it has none of them."""
    for one in kinds:
        field = one.__struct_config__.tag_field
        if field is not None and inner(data, field) == one.__struct_config__.tag:
            return one
    return kinds[0]


def type_of(struct: docs.Struct, path: Path, data: Any = None) -> str:
    """What may stand at ``path``, in words; empty when that is not known."""
    *above, name = path
    while above and not isinstance(name, str):
        name = above.pop()
    known = struct_at(struct, tuple(above), data)
    found = [field.type for field in docs.fields(known) if field.name == name] if known else []
    return docs.type_text(found[0]) if found else ""


def steps(path: str) -> Path:
    """``.keys[0].id`` as a path. (msgspec writes ``[...]`` for the values of a mapping.)"""
    return tuple(int(number) if number.isdigit() else (name or "*") for name, number in STEP.findall(path))


def key_text(path: Path) -> str:
    """A path as it is written to people: ``keys[0].id``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def named_path(document: Document, key: str, below: Path) -> Path:
    """The path of a key in an error of a struct's own check, where a list's entry may stand by its id: keys[web]."""
    path: Path = ()
    data: Any = document.data
    for name, inner in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", key):
        step: str | int = name
        if inner and isinstance(data, list):
            found = [n for n, item in enumerate(data) if isinstance(item, dict) and item.get("id") == inner]
            step = found[0] if found else 0
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            break
        path = (*path, step)
    return path or below
