"""From property names to column names: the rules, in one place (docs/reference/columns.md says them to users).

1. A path below ``properties`` or at the top of the event becomes its keys joined by ``_``; below ``traits`` and
   ``context`` that word comes first (``traits_email``).
2. Unicode is brought to NFKC and lower case; whatever is neither letter, digit nor ``_`` becomes ``_``; a name that
   begins with a digit gets ``_`` in front; an empty one becomes ``_``.
3. At most NAME_CHARACTERS_MAX characters; a longer one is cut and ends in ``_`` and 8 hex digits of its hash.
4. A name that a standard column or an earlier learned path holds gets its root in front (``properties_price``); if
   that is taken too, ``_2``, ``_3``, … behind. Names that begin with ``_hw_`` or equal ``_unmapped`` count as taken.
5. Reserved words of SQL stay as they are: every adapter quotes every name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

from xxhash import xxh3_64_hexdigest

NAME_CHARACTERS_MAX = 63
Path = tuple[str, ...]

ODD = re.compile(r"[^\w]", re.UNICODE)
PREFIXED = {"traits": "traits", "context": "context"}
OWN = "_hw_"
ROOTS = ("properties", "traits", "context")


def clean(text: str) -> str:
    """One part of a name by rules 2 and 3."""
    name = ODD.sub("_", unicodedata.normalize("NFKC", text).casefold())
    name = name or "_"
    return f"_{name}" if name[0].isdigit() else name


def shorten(name: str) -> str:
    """Rule 3."""
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    return f"{name[: NAME_CHARACTERS_MAX - 9]}_{xxh3_64_hexdigest(name.encode())[:8]}"


def column_name(path: Path, taken: Container[str]) -> str:
    """The column of a learned path, given the names that are taken."""
    root, parts = (path[0], path[1:]) if path[0] in ROOTS and len(path) > 1 else ("event", path)
    plain = shorten(clean("_".join(([PREFIXED[root]] if root in PREFIXED else []) + list(parts))))
    candidate = plain
    if _is_taken(candidate, taken):
        candidate = shorten(clean("_".join([root, *parts])))
    number = 2
    free = plain if not plain.startswith(OWN) else f"x{plain}"  # or no number would ever make it free
    while _is_taken(candidate, taken):
        candidate = shorten(f"{free[: NAME_CHARACTERS_MAX - 12]}_{number}")
        number += 1
    return candidate


def _is_taken(name: str, taken: Container[str]) -> bool:
    return name in taken or name.startswith(OWN) or name == "_unmapped"
