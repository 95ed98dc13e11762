"""What goes from a processor's node to its standby, and how it is cut into frames (kind STATE).

An *entry* is msgpack, one of:

* ``Seen``: a chunk of ids as it stands in a run (process/idruns.py). It names its commit, so it says by itself to which
  states it belongs; before the ``Base`` that it comes with, it changes nothing.
* ``Base``: some partitions stand *there*, with these counters. All ids of the window below it have been sent before.
* ``Delta``: one commit without its rows and dead letters: the chunk of its ids (origin, target and partitions stand in
  it) and what it adds to the counters.

Frames, all of kind STATE; ``n`` is the number of a processor:

==============  ==================  ==================================================================
from            header              body
==============  ==================  ==================================================================
standby         ``{follow: 1}``     ``Follow``: the first frame; which partitions, and what it holds already
owner           ``{n, last}``       a piece of an entry, at most ``PIECE_BYTES``; ``last`` ends the entry
owner           ``{whole: 1}``       ``Whole``, whenever it has become another
standby         ``{synced: 1}``     ``Synced``: what it would go on from now, after any crash
==============  ==================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from headwater.event.position import Vector
from headwater.kit.errors import Broken

PIECE_BYTES = 1024 * 1024
ENTRY_BYTES_MAX = 256 * 1024 * 1024
"""A commit adds 22 bytes per event: ten times what the largest cut (1 GiB) of small events would add is refused."""

Standing = list[tuple[bytes, list[int]]]
"""Partitions by the vector at which they stand, encoded."""
Counters = dict[str, dict[int, list[int]]]
Place = tuple[int, int]
"""A position in the ready log of the processor."""


class Seen(msgspec.Struct, frozen=True, array_like=True, tag="seen"):
    """Ids of one commit, as a chunk."""

    chunk: bytes


class Base(msgspec.Struct, frozen=True, array_like=True, tag="base"):
    """Where partitions stand."""

    standing: Standing
    counters: Counters
    ready: Place
    """From here on in the ready log there may be deltas for somebody."""
    config_epoch: int


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """One commit."""

    chunk: bytes
    changes: Counters
    ready: Place
    """Behind it."""
    config_epoch: int


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What a standby holds of one processor."""

    standing: Standing
    ready: Place


class Follow(msgspec.Struct, frozen=True, array_like=True):
    """What a standby asks for."""

    partitions: list[int]
    known: dict[int, Known]


class Synced(msgspec.Struct, frozen=True, array_like=True):
    """What a standby holds on its disk."""

    standing: Standing


class Whole(msgspec.Struct, frozen=True, array_like=True):
    """Of which partitions all is told that the owner has on its disk; ``empty``: those of them that stand nowhere."""

    told: list[int]
    empty: list[int]


WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises."""
Entry = Seen | Base | Delta
T = TypeVar("T")

encode = msgspec.msgpack.encode
_entries: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


def decode(data: bytes | bytearray | memoryview) -> Entry:
    """Broken: it is none."""
    try:
        return _entries.decode(data)
    except WRONG as error:
        raise _wrong("an entry of state", error) from error


def decode_as(data: bytes | memoryview, kind: type[T]) -> T:
    """The body of another frame. Broken: it is something else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except WRONG as error:
        raise _wrong(kind.__name__, error) from error


def _wrong(what: str, error: Exception) -> Broken:
    return Broken(
        f"not {what}: {error}", code="standby_format", help="do both nodes run releases that fit each other?"
    )


def standing(vectors: Mapping[int, Vector], wanted: Iterable[int]) -> Standing:
    """The partitions among those wanted that stand anywhere."""
    groups: dict[bytes, list[int]] = {}
    encoded: dict[int, bytes] = {}  # most partitions share their vectors with others
    for partition in wanted:
        if partition in vectors:
            vector = vectors[partition]
            if id(vector) not in encoded:
                encoded[id(vector)] = vector.encode()
            groups.setdefault(encoded[id(vector)], []).append(partition)
    return list(groups.items())


def vectors(told: Standing) -> dict[int, Vector]:
    """The other way."""
    found: dict[int, Vector] = {}
    for encoded, partitions in told:
        found |= dict.fromkeys(partitions, Vector.decode(encoded))
    return found


def pieces(entry: bytes) -> Iterator[tuple[memoryview, bool]]:
    """An entry as bodies of frames, each with whether it is the last."""
    view = memoryview(entry)
    for at in range(0, len(view), PIECE_BYTES):
        yield view[at : at + PIECE_BYTES], at + PIECE_BYTES >= len(view)


class Assembler:
    """Puts entries together again, those of one processor."""

    def __init__(self) -> None:
        self.held = bytearray()

    def add(self, piece: bytes | memoryview, last: bool) -> Entry | None:
        """The entry that this piece ends. Broken: it is none, or too long."""
        if len(self.held) + len(piece) > ENTRY_BYTES_MAX:
            raise Broken(
                f"an entry of state of more than {ENTRY_BYTES_MAX} bytes",
                code="standby_format",
                help="lower process.cut_bytes_max on the node that sends it",
            )
        if last and not self.held:
            return decode(piece)
        self.held += piece
        if not last:
            return None
        held, self.held = self.held, bytearray()
        return decode(held)
