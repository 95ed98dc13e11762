"""Frames: the bytes that nodes send each other (jetstream.md §15.1 C9).

::

    length u32 · version u8 · kind u8 · header length u32 · header (a msgpack map) · body (opaque)      all big-endian

``length`` counts what comes after it. A frame has at most ``FRAME_BYTES_MAX`` with everything, so nobody can make the
other side allocate more at once. A version that is not ours is an error, a kind that is not ours is not: it is handed
on, the receiver ignores and counts it, and so a newer node can say more than an older one understands.

``Assembler`` makes frames of whatever pieces a socket gives, without copying what came whole: the body of a frame
is a read-only view of the buffer that was read into, and keeps that buffer alive (at most ``CHUNK_BYTES_MAX`` or
one frame). Who keeps many small bodies for long copies them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from headwater.kit.errors import Rejected

VERSION = 1
FRAME_BYTES_MAX = 4 * 1024 * 1024
HEADER_BYTES_MAX = 1024 * 1024
"""A header becomes Python objects, many times its size; what is large belongs into the body."""

CHUNK_BYTES_MIN = 16 * 1024
CHUNK_BYTES_MAX = 1024 * 1024
"""What is read at once: little while little comes, more when every read fills its buffer."""

HEAD = struct.Struct(">IBBI")
LENGTH_BYTES = 4
LENGTH_MIN = HEAD.size - LENGTH_BYTES
TLS_RECORDS = (0x15, 0x16)
"""How an alert and a handshake of TLS begin. No frame of ours does: it would be far too long."""


class Kind(IntEnum):
    """What a frame is. Numbers are for ever; a new kind gets a new one."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    DATA = 4
    ACK = 5
    NACK = 6
    CREDIT = 7
    PING = 8
    PONG = 9
    TABLE = 10
    PROBE = 11
    DRAIN = 12
    BYE = 13
    OPEN = 14
    CLOSE = 15
    ENDED = 16
    PROGRESS = 17
    STATE = 18
    COPY = 19
    COPY_ACK = 20
    CALL = 21
    REPLY = 22
    ERROR = 23
    FIRE = 24
    MEMBER = 25
    PROOF = 26


KNOWN: Mapping[int, str] = {kind.value: kind.name for kind in Kind}
HANDSHAKE = frozenset((Kind.HELLO, Kind.PROOF, Kind.WELCOME, Kind.REFUSED))


class Raw(NamedTuple):
    """A frame whose header has not been read yet."""

    kind: int
    header: memoryview
    body: memoryview


class Frame(NamedTuple):
    """A frame as it is received. ``kind`` may be one that this version does not know."""

    kind: int
    header: dict[str, Any]
    body: memoryview


def kind_name(kind: int) -> str:
    """The kind's name, or its number where it has none here."""
    return KNOWN.get(kind, f"kind {kind}")


encode_header = msgspec.msgpack.Encoder().encode
decode_map = msgspec.msgpack.Decoder(dict[str, Any]).decode


def decode_header(header: memoryview) -> dict[str, Any]:
    """The header's map. Rejected when it is none."""
    try:
        return decode_map(header)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Rejected(f"the header is not a msgpack map: {error}", code="bad_header") from error


def head(kind: int, header: bytes, body_bytes: int) -> bytes:
    """The frame up to its body. Rejected when it would be too large; then nothing may be sent."""
    length = LENGTH_MIN + len(header) + body_bytes
    if length + LENGTH_BYTES > FRAME_BYTES_MAX or len(header) > HEADER_BYTES_MAX:
        raise Rejected(
            f"a {kind_name(kind)} frame of {length + LENGTH_BYTES} bytes, {len(header)} of them header",
            code="too_large",
            help=f"a frame has at most {FRAME_BYTES_MAX} bytes, its header {HEADER_BYTES_MAX}: split it",
        )
    return HEAD.pack(length, VERSION, kind, len(header)) + header


def encode(kind: int, header: Mapping[str, Any], *body: bytes | memoryview) -> bytes:
    """A whole frame as bytes."""
    return b"".join((head(kind, encode_header(header), sum(map(len, body))), *body))


class Assembler:
    """Makes frames of what is read: ``buffer`` is where to read to, ``filled`` tells how much was, ``next`` gives
    frames.

    Nothing is read while a whole frame waits. After an error nothing can be read any more: where the next frame would
    begin is not known.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX, chunk_bytes: int = CHUNK_BYTES_MIN) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.chunk_bytes_min = self.chunk_bytes = chunk_bytes
        self.view = memoryview(bytearray(chunk_bytes))
        self.start = 0
        """Where in ``view`` the frame begins that is not whole yet."""
        self.end = 0
        """Up to where ``view`` is filled."""
        self.needed = LENGTH_BYTES
        """Bytes of that frame that are to be there for the next step: its length, its head, then all of it."""
        self.crowded = False
        """Whether a read filled all that was free: more may wait."""

    @property
    def partial_bytes(self) -> int:
        """What is there of the frame that is not whole yet."""
        return self.end - self.start

    def raise_limits(self) -> None:
        """From now on frames may have any size that frames have, and reads grow with the load."""
        self.frame_bytes_max = FRAME_BYTES_MAX
        self.chunk_bytes_min = self.chunk_bytes = CHUNK_BYTES_MIN

    def buffer(self) -> memoryview:
        """Where to read to: never empty, and with room for the rest of the frame that has begun."""
        if self.start + max(self.needed, self.chunk_bytes // 8) > len(self.view):
            self.renew()
        return self.view[self.end :]

    def renew(self) -> None:
        """Go on in a new chunk; frames keep the old one. The beginning of a frame goes along."""
        begun = self.view[self.start : self.end]
        self.view = memoryview(bytearray(max(self.next_chunk_bytes(), self.needed)))
        self.view[: len(begun)] = begun
        self.start, self.end = 0, len(begun)

    def next_chunk_bytes(self) -> int:
        """Twice as many where a read filled the last chunk, half as many where none did."""
        if self.frame_bytes_max < FRAME_BYTES_MAX:
            return self.chunk_bytes
        wanted = self.chunk_bytes * 2 if self.crowded else self.chunk_bytes // 2
        self.crowded = False
        self.chunk_bytes = min(max(wanted, self.chunk_bytes_min), CHUNK_BYTES_MAX)
        return self.chunk_bytes

    def filled(self, count: int) -> None:
        """``count`` bytes were read into the buffer."""
        self.end += count
        self.crowded |= self.end == len(self.view)

    def next(self) -> Raw | None:
        """The next frame of what was read; None: more must be read first. Rejected: it is no frame of ours."""
        while self.end - self.start >= self.needed:
            if self.needed == LENGTH_BYTES:
                self.check_length()
                self.needed = HEAD.size
            elif self.needed == HEAD.size:
                self.needed = self.checked_head()
            else:
                return self.take()
        return None

    def check_length(self) -> None:
        """Refuse what is too short or too long, before anything is kept for it."""
        first = self.view[self.start]
        length = int.from_bytes(self.view[self.start : self.start + LENGTH_BYTES], "big")
        if LENGTH_MIN < length <= self.frame_bytes_max - LENGTH_BYTES:
            return
        if first in TLS_RECORDS:
            raise Rejected(
                "the other side speaks TLS", code="tls", help="set cluster.tls on all nodes or on none"
            )
        raise Rejected(
            f"a frame of {length + LENGTH_BYTES} bytes",
            code="bad_frame",
            help=f"expected {HEAD.size + 1} to {self.frame_bytes_max}: is the other side a Headwater node?",
        )

    def checked_head(self) -> int:
        """Bytes of the whole frame, its head being of our version and possible."""
        length: int
        length, version, _, header_bytes = HEAD.unpack_from(self.view, self.start)
        if version != VERSION:
            raise Rejected(
                f"frames of version {version}",
                code="foreign_version",
                help=f"this node reads version {VERSION}; update node by node, none by more than one release",
            )
        if not 0 < header_bytes <= min(length - LENGTH_MIN, HEADER_BYTES_MAX):
            raise Rejected(f"a header of {header_bytes} bytes in a frame of {length}", code="bad_frame")
        return LENGTH_BYTES + length

    def take(self) -> Raw:
        """The frame that is whole now."""
        _, _, kind, header_bytes = HEAD.unpack_from(self.view, self.start)
        begin = self.start + HEAD.size
        body = begin + header_bytes
        end = self.start + self.needed
        whole = self.view.toreadonly()
        self.start, self.needed = end, LENGTH_BYTES
        return Raw(kind, whole[begin:body], whole[body:end])
