"""What an owner and a home say to each other about a stream (protocol.md §6).

::

    owner → home    OPEN {stream, partitions, origin, until, credit} · CREDIT {stream, bytes} · CLOSE {stream}
    home → owner    DATA {stream, blocks, last, start, boot_ns, node_time_ns, hash} + payloads
                    ENDED {stream, writer, log, seq}
    owner → home    PROGRESS {epoch, groups}, on a connection of its own (lane/progress)
    home → holder   COPY {stands}, then DATA and ENDED as to an owner, on a connection of its own (lane/copies)
    holder → home   COPY_ACK {stands, begins, full}, after COPY and after the last frame of each cut

The bodies of the DATA frames of a stream, one after the other, are the payloads of its blocks, one after the other: a
payload may go on in the next frames. ``last`` says that everything up to the time (start, boot_ns) is there now; a
frame with neither blocks nor ``last`` says only that the home is alive. Vectors travel as their canonical bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from headwater.event.position import Vector
from headwater.kit.errors import Rejected
from headwater.peer.frames import Frame, Kind
from headwater.peer.identity import Hello

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0)]
BODY_BYTES_MAX = 1024 * 1024
"""Of one DATA frame."""
BLOCKS_MAX = 2048
"""Named in one DATA frame."""


class Connection(Protocol):
    """What the lane needs of a peer connection (peer/connection.py)."""

    @property
    def peer(self) -> Hello: ...
    async def send(self, kind: int, header: Mapping[str, Any], *body: bytes | memoryview) -> None: ...
    async def receive(self) -> Frame | None: ...
    async def close(self) -> None: ...


class Gap(IntEnum):
    """Why a stretch of a log is not there."""

    NONE = 0
    """It is: the payload of the block is in the body."""
    DAMAGED = 1
    GIVEN_BACK = 2
    """Retention took it."""


class Moment(NamedTuple):
    """The T of a cut, as its home's clocks have it."""

    start: int
    boot_ns: int
    node_time_ns: int


class BlockHead(msgspec.Struct, frozen=True, array_like=True):
    """A block, or a stretch that its home cannot give."""

    writer: Count
    log: Count
    first_seq: Count
    events: Count
    records: Count
    start: Count
    boot_ns: Count
    node_time_ns: Count
    bytes: Count
    """Of its payload."""
    gap: Gap = Gap.NONE


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """An owner asks for a stream, or asks again from where its mirror ends."""

    stream: str
    partitions: list[int]
    origin: bytes
    until: bytes | None = None
    credit: Count = 0
    home: str = ""
    """Whose log is meant, where it is not that of the node that is asked: its copies are, then."""

    @property
    def origin_vector(self) -> Vector:
        """From where on."""
        return Vector.decode(self.origin)

    @property
    def until_vector(self) -> Vector | None:
        """Up to where; None: for ever."""
        return None if self.until is None else Vector.decode(self.until)


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """The home may send so many bytes of payloads more."""

    stream: str
    bytes: Count


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody wants the stream any more."""

    stream: str


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks of a cut, or its end."""

    stream: str
    blocks: list[BlockHead] = []
    last: bool = False
    start: Count = 0
    boot_ns: Count = 0
    node_time_ns: Count = 0
    hash: Count = 0
    """xxh3_64 of the body: the home believed its blocks by their hashes, which only it can check."""

    @property
    def moment(self) -> Moment:
        """The time up to which everything is there, where it is the last."""
        return Moment(self.start, self.boot_ns, self.node_time_ns)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A log has got its end, and all of it was sent."""

    stream: str
    writer: Count
    log: Count
    seq: Count


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Partitions, and from where on their owner may ask for raw events again; vectors in hex, as in reports."""

    partitions: list[Count]
    vector: str
    kept: str
    """The same, without the destinations that may be written off when the raw log is full."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner needs for its partitions, by the table of this epoch."""

    epoch: Count
    groups: list[Need]
    at: str = ""
    """What it has processed of all its partitions: a vector in hex; "" where it does not know."""
    share: float = 0.0
    """How full its mirrors are of what they may take, 0 to 1; of the fullest."""
    waits: list[str] = []
    """Destinations that keys of this node name with `ack: delivered`."""
    delivered: dict[str, dict[str, list[Count]]] = {}
    """Where those that the receiver waits for stand in its logs, of the sender's partitions: destination → vector in
    hex → partitions (node/arrived)."""


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A home will send its raw log; of what lies below ``stands`` there are enough copies, or nobody needs it."""

    stands: bytes

    @property
    def vector(self) -> Vector:
        """From where on the holder is to have all of it."""
        return Vector.decode(self.stands)


class CopyAck(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder has on its disk, of the writers of one home."""

    stands: bytes
    """Where its copies end."""
    begins: bytes = b""
    """From where on they are without a gap; said in answer to COPY."""
    full: bool = False
    """It has no room for more."""


class Outgoing(NamedTuple):
    """A frame to be sent."""

    kind: Kind
    header: dict[str, Any]
    body: bytes = b""


KINDS: Mapping[type[msgspec.Struct], Kind] = {
    Open: Kind.OPEN,
    Credit: Kind.CREDIT,
    Close: Kind.CLOSE,
    Data: Kind.DATA,
    Ended: Kind.ENDED,
    Progress: Kind.PROGRESS,
    Copy: Kind.COPY,
    CopyAck: Kind.COPY_ACK,
}


def outgoing(message: msgspec.Struct, body: bytes = b"") -> Outgoing:
    """A message as it is sent: what is inside of it is encoded with the frame."""
    header = {name: getattr(message, name) for name in message.__struct_fields__}
    return Outgoing(KINDS[type(message)], header, body)


def message(frame: Frame, kind: type[T]) -> T:
    """The message of a frame. Rejected: it is none."""
    try:
        return msgspec.convert(frame.header, kind)
    except msgspec.ValidationError as error:
        raise Rejected(
            f"not a {kind.__name__} of the lane: {error}",
            code="lane_format",
            help="the other node runs another version of Headwater",
        ) from error


def data(frame: Frame) -> Data:
    """The DATA of a frame. Rejected: it is none, or its body was spoilt on its way."""
    found = message(frame, Data)
    if found.hash != xxh3_64_intdigest(frame.body):
        raise Rejected(f"the body of {len(frame.body)} bytes was spoilt on its way", code="lane_hash")
    return found


class Packer:
    """Puts blocks into DATA frames, each full but the last."""

    def __init__(self, stream: str, body_bytes: int = 0) -> None:
        """``body_bytes``: of one frame, at most; 0: as much as may be."""
        self.stream = stream
        self.body_bytes = body_bytes or BODY_BYTES_MAX
        self.frames: list[Outgoing] = []
        self.blocks: list[BlockHead] = []
        self.parts: list[memoryview] = []
        self.size = 0

    def add(self, head: BlockHead, parts: Iterable[bytes | memoryview]) -> None:
        """A block; its payload may go on in the next frames."""
        if len(self.blocks) == BLOCKS_MAX:
            self.flush()
        self.blocks.append(head)
        for part in parts:
            left = memoryview(part)
            while left:
                taken = left[: self.body_bytes - self.size]
                self.parts.append(taken)
                self.size += len(taken)
                left = left[len(taken) :]
                if self.size == self.body_bytes:
                    self.flush()

    def end_log(self, ended: Ended) -> None:
        """Behind the blocks so far."""
        self.flush()
        self.frames.append(outgoing(ended))

    def flush(self, moment: Moment | None = None) -> None:
        """A frame of what there is; with the time where it is the last of the cut."""
        if not self.blocks and not self.parts and moment is None:
            return
        body = b"".join(self.parts)
        start, boot_ns, node_time_ns = moment or Moment(0, 0, 0)
        told = Data(
            stream=self.stream,
            blocks=self.blocks,
            last=moment is not None,
            start=start,
            boot_ns=boot_ns,
            node_time_ns=node_time_ns,
            hash=xxh3_64_intdigest(body),
        )
        self.frames.append(outgoing(told, body))
        self.blocks, self.parts, self.size = [], [], 0


def alive(stream: str) -> Outgoing:
    """The home is there, and has nothing to say."""
    return outgoing(Data(stream=stream, hash=xxh3_64_intdigest(b"")))
