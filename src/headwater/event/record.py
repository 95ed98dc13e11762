"""Records: what the collector appends, laid out so that a reader needs no Python per record.

A *record* is one request: its stamps, its *head* (what the request line and the headers said; many requests
share one) and the body as received, content-decoded. The payload of a block holds the records of one commit::

    counts      records u32, events u32, refused u32, heads bytes u32, streams bytes u32, bodies bytes u32
    stamps      records x 48 bytes, see STAMP
    refused     refused x u32: indexes of refused events, record after record
    heads       [u32 length, msgpack of Head], each once
    streams     msgpack {key id: [events in this block, events in this log up to and with this block]}
    bodies      each body followed by one newline

Little endian. ``Stamp.body`` is the length of a body without its newline. Bodies of records with SINGLE are one
JSON object without a raw newline, so that the bodies of a block of single events are NDJSON as they lie.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.kit.errors import Broken

if TYPE_CHECKING:
    import numpy as np  # at run time readers alone import it: the door, which only writes, starts without

COUNTS = struct.Struct("<6I")
STAMP = struct.Struct("<Q16sIIIIHHI")
STAMP_FIELDS = (
    ("received", "<u8"),  # node time in ns, CLOCK_BOOTTIME + the node's offset
    ("address", "S16"),  # see ADDRESS flags; compare through ["address_raw"], numpy strips zeros of S
    ("body", "<u4"),  # bytes of the body
    ("head", "<u4"),  # index into the heads of this block
    ("events", "<u4"),  # events in the body, refused ones counted
    ("refused", "<u4"),  # how many of them were refused at the door
    ("slot", "<u2"),  # of a SINGLE record; NO_SLOT otherwise
    ("flags", "<u2"),
    ("spare", "<u4"),
)
STAMP_BYTES = STAMP.size

SINGLE = 1  # the body is one JSON object on one line
DEAD = 2  # refused at the door: every event of it is dead; the reason stands in the head's `refusal`
ERASED = 4  # the body was blanked by an erasure; counts and positions stand
ADDRESS_V6 = 8  # the address is IPv6 (otherwise IPv4-mapped)
ADDRESS_HASH = 16  # the address field is a salted hash
ADDRESS_NONE = 32  # no address kept
MEMORY = 64  # acknowledged at `memory`
ELSEWHERE = (
    128  # a run of events of others: the mirror of a log on an owner's node has their count only (lane/blank)
)


OPERATOR = "(operator)"
"""The stream of records that no client sent: decisions of an operator, which change what is known and give no row. A
key's id has no such signs, so nobody outside can write under it."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What later stages need of the request line and headers; equal heads are stored once per block."""

    key_id: str
    dialect: str
    method: str
    path: str
    query: str = ""
    content_type: str = ""
    headers: dict[str, str] = {}
    """Lower-case names: user-agent, referer, accept-language, sec-ch-ua*, origin, dnt, sec-gpc; only those sent."""
    https: bool = False
    refusal: str = ""
    """Of DEAD records: `reason|field`."""


class BlockCounts(msgspec.Struct, frozen=True, array_like=True):
    """Events of one stream: in this block, and in its log so far."""

    here: int
    so_far: int


@dataclass(frozen=True, slots=True)
class Payload:
    """A decoded payload. Arrays are views of the block's bytes."""

    stamps: np.ndarray[Any, np.dtype[np.void]]
    first_event: np.ndarray[Any, np.dtype[np.int64]]
    """Of each record: index of its first event in the block (records + 1 entries)."""
    body_start: np.ndarray[Any, np.dtype[np.int64]]
    """Of each record: where its body begins in ``bodies`` (records + 1 entries)."""
    refused: np.ndarray[Any, np.dtype[np.uint32]]
    heads: tuple[bytes, ...]
    """Encoded heads; decode with ``decode_head`` and keep the result by these bytes."""
    streams: Mapping[str, BlockCounts]
    bodies: memoryview

    def body(self, record: int) -> memoryview:
        """The body of one record, as received."""
        return self.bodies[int(self.body_start[record]) : int(self.body_start[record + 1]) - 1]


head_encoder = msgspec.msgpack.Encoder()
head_decoder = msgspec.msgpack.Decoder(Head)
streams_decoder = msgspec.msgpack.Decoder(dict[str, BlockCounts])


def encode_head(head: Head) -> bytes:
    """Length-prefixed, as it stands in a payload."""
    data = head_encoder.encode(head)
    return len(data).to_bytes(4, "little") + data


def decode_head(data: bytes) -> Head:
    """From one entry of ``Payload.heads``."""
    return head_decoder.decode(data)


def encode_payload(
    stamps: Sequence[bytes],
    bodies: Sequence[bytes],
    heads: Sequence[bytes],
    refused: Sequence[int],
    streams: Mapping[str, tuple[int, int]],
    events: int,
) -> bytes:
    """The bytes of a payload from packed stamps, bodies, encoded heads (``encode_head``) and counts per stream."""
    joined = b"\n".join(bodies) + b"\n" if bodies else b""
    head_bytes = b"".join(heads)
    stream_bytes = head_encoder.encode(streams)
    counts = COUNTS.pack(len(stamps), events, len(refused), len(head_bytes), len(stream_bytes), len(joined))
    refusals = struct.pack(f"<{len(refused)}I", *refused) if refused else b""
    return b"".join((counts, *stamps, refusals, head_bytes, stream_bytes, joined))


@cache
def stamp_type() -> np.dtype[np.void]:
    """A stamp as numpy sees it."""
    import numpy as np

    return np.dtype(list(STAMP_FIELDS))


def decode_streams(payload: memoryview) -> Mapping[str, BlockCounts]:
    """The counts per stream alone, without the arrays."""
    records, _, refused, head_bytes, stream_bytes, _ = COUNTS.unpack_from(payload, 0)
    at = COUNTS.size + records * STAMP_BYTES + 4 * refused + head_bytes
    return streams_decoder.decode(payload[at : at + stream_bytes])


def decode_payload(payload: memoryview) -> Payload:
    """The views of a payload; Broken where its lengths contradict each other (the block's hash was right)."""
    import numpy as np

    records, events, refused, head_bytes, stream_bytes, body_bytes = COUNTS.unpack_from(payload, 0)
    at = COUNTS.size
    stamps = np.frombuffer(payload, stamp_type(), records, at)
    at += records * STAMP_BYTES
    refusals = np.frombuffer(payload, "<u4", refused, at)
    at += 4 * refused
    heads = split_heads(bytes(payload[at : at + head_bytes]))
    at += head_bytes
    streams = streams_decoder.decode(payload[at : at + stream_bytes])
    at += stream_bytes
    bodies = payload[at : at + body_bytes]
    first_event = np.zeros(records + 1, np.int64)
    np.cumsum(stamps["events"], out=first_event[1:])
    body_start = np.zeros(records + 1, np.int64)
    np.cumsum(stamps["body"].astype(np.int64) + 1, out=body_start[1:])
    if at + body_bytes != len(payload) or int(first_event[-1]) != events or int(body_start[-1]) != body_bytes:
        raise Broken("the lengths inside a block's payload contradict each other", code="payload_format")
    return Payload(stamps, first_event, body_start, refusals, heads, streams, bodies)


def split_heads(data: bytes) -> tuple[bytes, ...]:
    """The encoded heads of a payload, each without its length."""
    heads = []
    at, end = 0, len(data)
    while at < end:
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        heads.append(data[begin:at])
    return tuple(heads)


def addresses(stamps: np.ndarray[Any, np.dtype[np.void]]) -> np.ndarray[Any, np.dtype[np.void]]:
    """The 16 address bytes of each stamp as opaque values (an ``S16`` view would lose trailing zeros)."""
    import numpy as np

    raw = np.frombuffer(stamps.tobytes(), np.uint8).reshape(len(stamps), STAMP_BYTES)
    return np.ascontiguousarray(raw[:, 8:24]).view("V16").reshape(-1)
