"""Group commit: many requests, one fdatasync, no window (speed.md D2, D3).

The event loop appends; whatever was appended while the disk was busy becomes the next block. The loop hands a
closed batch to one commit thread and hears back once per block, so there is no task, future or lock per request.
A batch that the disk refused takes all later ones with it: sequence numbers stay dense, everybody is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from headwater.event.position import WriterId
from headwater.event.record import STAMP, STAMP_BYTES, encode_payload
from headwater.event.slots import NO_SLOT
from headwater.kit.errors import Broken, Busy, HeadwaterError
from headwater.kit.threads import Submit
from headwater.log.block import BLOCK_BYTES_MAX
from headwater.log.write import BlockWriter

W = TypeVar("W")
Release = Callable[[Sequence[W], HeadwaterError | None], None]

BATCH_BYTES_MAX = BLOCK_BYTES_MAX - 64 * 1024
"""Bodies, heads and stamps of one block; the rest is room for header and counts."""
COUNT_BYTES_MAX = 5 + 1 + 9 + 9
"""Of one stream, beside its name: msgpack's marks and two numbers."""
pack_stamp = STAMP.pack


class Batch(Generic[W]):
    """What the next block will hold."""

    __slots__ = ("bodies", "events", "heads", "refused", "size", "stamps", "streams", "waiters")

    def __init__(self) -> None:
        self.stamps: list[bytes] = []
        self.bodies: list[bytes] = []
        self.heads: dict[bytes, int] = {}
        self.refused: list[int] = []
        self.streams: dict[str, int] = {}
        self.waiters: list[W] = []
        self.events = 0
        self.size = 0


class GroupCommit(Generic[W]):
    """The log of one collect worker, seen from its event loop. Everything here runs in the loop but ``_commit``."""

    def __init__(
        self,
        blocks: BlockWriter,
        loop: asyncio.AbstractEventLoop,
        release: Release[W],
        *,
        pending_bytes_max: int,
        submit: Submit,
    ) -> None:
        self.blocks = blocks
        self.loop = loop
        self.release = release
        self.pending_bytes_max = pending_bytes_max
        self.pending_bytes_half = pending_bytes_max // 2
        """Above it also those wait who asked for less than the disk: a fast sender is slowed, not refused."""
        self.submit = submit
        self.receipt_prefix = f"{WriterId(blocks.writer):016x}-{blocks.log_id:016x}-"
        self.next_seq = 0
        self.so_far: dict[str, int] = {}
        self.known_streams: set[str] = set()
        self.counts_bytes = 0
        """At most so much the counts of all streams of the log take, which stand in every block."""
        self.batch: Batch[W] = Batch()
        self.closed: deque[Batch[W]] = deque()
        self.pending_bytes = 0
        self.committing = False
        self.scheduled = False
        self.commits = 0
        self.idle: asyncio.Future[None] | None = None

    def full(self) -> HeadwaterError | None:
        """None when an append may follow at once; else what to answer, with 503."""
        if self.blocks.ended:
            return Busy(f"the log has ended: {self.blocks.ended}", retry_after_s=1, code="log_ended")
        if self.pending_bytes > self.pending_bytes_max:
            return Busy("the disk is behind", retry_after_s=1, code="log_behind")
        if not self.blocks.has_room(2 * self.pending_bytes + BLOCK_BYTES_MAX):
            if self.blocks.segments.ready or self.blocks.segments.preparing:
                return Busy("the next segment is being prepared", retry_after_s=1, code="log_preparing")
            return Busy(
                f"no room in the log: {self.blocks.segments.trouble}", retry_after_s=5, code="log_full"
            )
        return None

    def append(
        self,
        received_ns: int,
        address: bytes,
        body: bytes,
        head: bytes,
        *,
        stream: str,
        events: int = 1,
        refused: Sequence[int] = (),
        slot: int = NO_SLOT,
        flags: int = 0,
        waiter: W | None = None,
    ) -> int:
        """Take one record into the next block; the log's next sequence number after its events.

        ``full`` was None in this turn of the loop. ``head`` is ``encode_head`` of the request's head: keep one
        bytes object per distinct head. ``waiter`` goes to ``release`` once the block is durable, or with the error
        that says it is not known to be.
        """
        batch = self.batch
        size = len(body) + STAMP_BYTES + 1 + 4 * len(refused)
        if stream not in self.known_streams:
            self.known_streams.add(stream)
            self.counts_bytes += len(stream.encode()) + COUNT_BYTES_MAX
        if batch.size + size + len(head) + self.counts_bytes > BATCH_BYTES_MAX:
            self._close_batch()
            batch = self.batch
        index = batch.heads.get(head)
        if index is None:
            index = batch.heads[head] = len(batch.heads)
            size += len(head)
        batch.stamps.append(
            pack_stamp(received_ns, address, len(body), index, events, len(refused), slot, flags, 0)
        )
        batch.bodies.append(body)
        if refused:
            batch.refused += refused
        streams = batch.streams
        streams[stream] = streams.get(stream, 0) + events
        batch.events += events
        batch.size += size
        self.pending_bytes += size
        self.next_seq += events
        if waiter is not None:
            batch.waiters.append(waiter)
        if not self.scheduled and not self.committing:
            self.scheduled = True
            self.loop.call_soon(self._start)
        return self.next_seq

    async def close(self) -> None:
        """Wait until everything appended is durable or refused, then release the files."""
        while self.committing or self.scheduled or self.batch.stamps or self.closed:
            self.idle = self.loop.create_future()
            await self.idle
        self.blocks.close()

    def _close_batch(self) -> None:
        self.closed.append(self.batch)
        self.batch = Batch()

    def _start(self) -> None:
        self.scheduled = False
        if self.batch.stamps and not self.closed:
            self._close_batch()
        if self.closed and not self.committing:
            self.committing = True
            batch = self.closed[0]
            self.submit(lambda: self._commit(batch))

    def _commit(self, batch: Batch[W]) -> None:
        """In the commit thread: encode, write, sync, tell the loop."""
        error: HeadwaterError | None = None
        try:
            streams = {stream: (0, total) for stream, total in self.so_far.items()}
            for stream, count in batch.streams.items():
                streams[stream] = (count, self.so_far.get(stream, 0) + count)
            payload = encode_payload(
                batch.stamps, batch.bodies, list(batch.heads), batch.refused, streams, batch.events
            )
            self.blocks.write(payload, records=len(batch.stamps), events=batch.events)
            self.so_far = {stream: total for stream, (_, total) in streams.items()}
        except HeadwaterError as caught:
            error = caught
        except (
            Exception
        ) as caught:  # a mistake of ours: nobody may be left waiting, and the log must not go on
            self.blocks.ended = f"{type(caught).__name__}: {caught}"
            error = Broken(f"a block could not be written: {self.blocks.ended}", code="commit_broken")
        self.loop.call_soon_threadsafe(self._committed, batch, error)

    def _committed(self, batch: Batch[W], error: HeadwaterError | None) -> None:
        self.committing = False
        self.commits += 1
        if error is None:
            self.closed.popleft()
            self.pending_bytes -= batch.size
            self._release(batch.waiters, None)
        else:
            self._refuse_all(error)
        if self.closed or self.batch.stamps:
            self._start()
        elif self.idle is not None and not self.idle.done():
            self.idle.set_result(None)

    def _refuse_all(self, error: HeadwaterError) -> None:
        """The batch in hand and all behind it are not in the log: their numbers are given anew, if it goes on."""
        lost = [*self.closed, self.batch]
        self.closed.clear()
        self.batch = Batch()
        self.pending_bytes = 0
        self.next_seq = self.blocks.next_seq
        for batch in lost:
            self._release(batch.waiters, error)

    def _release(self, waiters: Sequence[W], error: HeadwaterError | None) -> None:
        if waiters:
            self.release(waiters, error)
