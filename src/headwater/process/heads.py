"""Request heads as columns: each distinct head is decoded once, its values are spread over the events.

Many requests share a head, and those that do not still share most of its values (client hints, referer, language), so
nothing here is done per event: numbers of heads are arrays, a column that says one thing for all is one repeated value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from headwater.event.record import Head, decode_head
from headwater.process.enrich.distinct import one_for_all
from headwater.process.enrich.user_agent import HINTS, join_hints

Array = np.ndarray[Any, Any]
HEADS_MAX = 200_000


class KnownHead(NamedTuple):
    """What processing needs of a head; headers are None where they were not sent."""

    default_type: str
    """Type of its events where they say none themselves."""
    key_id: str
    dialect: str
    is_import: bool
    """It came on an import route: the times of its events are the sender's."""
    from_page: bool
    """A page sent it (it has an Origin), not a server."""
    user_agent: str | None
    referer: str | None
    accept_language: str | None
    hints: str | None
    """User-agent client hints as the memo of user agents reads them: joined; None where none was sent."""


def known(data: bytes, default_type: Callable[[Head], str]) -> KnownHead:
    """From the bytes of a head."""
    head = decode_head(data)
    header = head.headers.get
    return KnownHead(
        default_type(head),
        head.key_id,
        head.dialect,
        head.path.endswith("/import"),
        "origin" in head.headers,
        header("user-agent"),
        header("referer"),
        header("accept-language"),
        join_hints([header(name) for name in HINTS]),
    )


class HeadTable:
    """Heads by their bytes, numbered. Forgets everything when it is full, but only between cuts."""

    def __init__(self, default_type: Callable[[Head], str]) -> None:
        self.default_type = default_type
        self.number_of: dict[bytes, int] = {}
        self.heads: list[KnownHead] = []

    def make_room(self) -> None:
        """Before a cut: numbers given until the next call stay valid."""
        if len(self.heads) >= HEADS_MAX:
            self.number_of.clear()
            self.heads.clear()

    def numbers(self, heads: tuple[bytes, ...]) -> Array:
        """The number of each head."""
        number = self.number_of.get
        found = [number(data) for data in heads]
        if None in found:
            found = [self._add(data) if at is None else at for data, at in zip(heads, found, strict=True)]
        return np.array(found, np.int64)

    def _add(self, data: bytes) -> int:
        self.heads.append(known(data, self.default_type))
        self.number_of[data] = len(self.heads) - 1
        return len(self.heads) - 1


class HeadColumns:
    """Columns that depend on the head only."""

    def __init__(self, heads: list[KnownHead], head: Array) -> None:
        """``head``: of each event, the index in ``heads``."""
        self.events = len(head)
        self.index = pa.array(head.astype(np.int32))
        values = list(zip(*heads, strict=True)) or [()] * len(KnownHead._fields)
        self.values = dict(zip(KnownHead._fields, values, strict=True))

    def __call__(self, name: str) -> pa.Array:
        """A field of ``KnownHead``, one value per event."""
        values = self.values[name]
        dtype = pa.bool_() if name in ("is_import", "from_page") else pa.string()
        if one_for_all(values):
            return pa.repeat(pa.scalar(values[0], dtype), self.events)
        return pa.array(values, dtype).take(self.index)
