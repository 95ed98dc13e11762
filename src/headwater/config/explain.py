"""``headwater config explain KEY``: what a setting is, where that came from, and what it means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import msgspec

from headwater.config import docs
from headwater.config.load import Document, Path, key_text
from headwater.kit.errors import Rejected

NEAR = 0.75
"""How alike two names must be, of 1, before one is proposed for the other."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say about one key."""

    key: str
    value: Any
    default: Any
    source: str
    type: str
    meaning: str


def explain(settings: msgspec.Struct, document: Document, key: str) -> list[Explanation]:
    """The explanation of a key; of a block, one per setting in it. Rejected names the nearest key there is."""
    path = parse(key)
    found = [e for e in everything(settings, document) if parse(e.key)[: len(path)] == path]
    if not found:
        known = [e.key for e in everything(settings, document)]
        near = nearest(key, known)
        raise Rejected(
            f"there is no setting `{key}`",
            code="unknown_key",
            help=f"did you mean `{near}`?" if near else "without a key, every setting is listed",
        )
    return found


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The setting or block that was probably meant, by its whole name or by its last part; None rather than a guess
    that has little to do with the key."""
    names: dict[str, str] = {}
    for whole in known:
        parts = whole.split(".")
        for length in range(len(parts), 0, -1):
            path = ".".join(parts[:length])
            names.setdefault(path, path)
            names.setdefault(parts[length - 1], path)
    close = difflib.get_close_matches(key, names, 1, NEAR)
    return names[close[0]] if close else None


def everything(settings: msgspec.Struct, document: Document, below: Path = ()) -> list[Explanation]:
    """Every setting that is not a block."""
    found: list[Explanation] = []
    for field in docs.fields(type(settings)):
        path = (*below, field.name)
        value = getattr(settings, field.name)
        blocks = inner_blocks(value, path, document)
        if blocks:
            for block, at in blocks:
                found += everything(block, document, at)
        elif not (docs.struct_in(field.type) and not value):
            found.append(one(field, value, path, document))
    return found


def inner_blocks(value: Any, path: Path, document: Document) -> list[tuple[msgspec.Struct, Path]]:
    """The blocks inside a value, with their paths; entries of lists by their id where they have one."""
    if isinstance(value, msgspec.Struct):
        return [(value, path)]
    if isinstance(value, dict):
        return [(block, (*path, name)) for name, block in value.items() if isinstance(block, msgspec.Struct)]
    if isinstance(value, list):
        return [(block, (*path, n)) for n, block in enumerate(value) if isinstance(block, msgspec.Struct)]
    return []


def one(field: docs.Field, value: Any, path: Path, document: Document) -> Explanation:
    """The explanation of one setting."""
    secret = docs.is_secret(field.name)
    default = None if field.default is docs.NO_DEFAULT else field.default
    return Explanation(
        key=key_text(path),
        value="…" if secret and value else docs.without_password(value),
        default="…" if secret and default else default,
        source=source(document, path),
        type=docs.type_text(field.type),
        meaning=field.meaning,
    )


def source(document: Document, path: Path) -> str:
    """``default``, ``headwater.yaml:3``, or with the environment variables that it was made of."""
    place = document.places.get(path)
    if place is None:
        return "default"
    text = f"{document.name}:{place.line}"
    for name in place.variables:
        text += f", ${{env.{name}}} {'is not set, its default' if name in place.defaults else 'from the environment'}"
    return text


def parse(key: str) -> tuple[str, ...]:
    """``keys[0].id`` and ``keys.0.id`` alike."""
    return tuple(part for part in key.replace("[", ".").replace("]", "").split(".") if part)
