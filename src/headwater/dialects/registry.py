"""All dialects, by the name that stands in a record's head. A new one is one room and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headwater.dialects import native, pixel, segment
from headwater.dialects.envelope import Envelope, Limits
from headwater.dialects.split import Split
from headwater.event.record import Head


class Dialect(NamedTuple):
    """Both halves of a dialect."""

    name: str
    paths: tuple[str, ...]
    """What it answers to."""
    envelope: Callable[[Limits], Envelope]
    """For the door: reads a body under these limits."""
    split: Callable[[Head, bytes, int], Split]
    """For processing: pure; exactly as many items as the record has events, whatever the body is."""
    default_type: Callable[[Head], str]
    """The type of events whose JSON says none."""
    why: Callable[[Head, bytes], tuple[str, str]]
    """(reason, field) of an item of a batch that the door refused."""


DIALECTS = {
    room.NAME: Dialect(room.NAME, room.PATHS, room.envelope, room.split, room.default_type, room.why)
    for room in (segment, native, pixel)
}
