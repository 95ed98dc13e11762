"""What a setting means, read from where it is written: the text below a field in its struct.

One source for ``headwater config explain``, for error messages and for docs/configuration.md, so none goes stale.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import FieldInfo

Struct = type[msgspec.Struct]
SECRETS = ("secret", "token", "password", "admin_token")


class Field(NamedTuple):
    """One setting."""

    name: str
    type: Any
    default: Any
    """NO_DEFAULT when it must be given."""
    meaning: str


NO_DEFAULT = msgspec.NODEFAULT


@cache
def meanings(struct: Struct) -> dict[str, str]:
    """Field → the text below it, bases included, on one line."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if base is msgspec.Struct or not issubclass(base, msgspec.Struct):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for line, text in zip(tree.body, tree.body[1:], strict=False):
            match line, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found[name] = " ".join(said.split())
    return found


def fields(struct: Struct) -> list[Field]:
    """The settings of a struct, in the order in which they are written."""
    return [
        Field(info.name, info.type, default_of(info), meanings(struct).get(info.name, ""))
        for info in msgspec.structs.fields(struct)
    ]


def default_of(info: FieldInfo) -> Any:
    """The default's value; NO_DEFAULT when there is none."""
    if info.default_factory is not NO_DEFAULT:
        return info.default_factory()
    return info.default


def structs_in(annotation: Any) -> list[Struct]:
    """The structs that an annotation names: itself, or what it is a list, a mapping or a choice of."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [struct for part in typing.get_args(annotation) for struct in structs_in(part)]


def struct_in(annotation: Any) -> Struct | None:
    """The first of ``structs_in``; None for plain values."""
    return next(iter(structs_in(annotation)), None)


def is_secret(name: str) -> bool:
    """Whether a value of this name is never shown."""
    return name.lower() in SECRETS


def type_text(annotation: Any) -> str:
    """A type as a person writes it: ``text``, ``number``, ``list of text``, ``disk | memory``."""
    plain = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true | false",
        type(None): "null",
        Any: "anything",
    }
    if annotation in plain:
        return plain[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(str(part) or '""' for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(part) for part in parts)
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_text(parts[0])}"
    if origin is dict:
        return f"mapping of {type_text(parts[1])}"
    if origin is typing.Annotated:
        return type_text(parts[0])
    return "block" if struct_in(annotation) else str(getattr(annotation, "__name__", annotation))
