"""Events into Kafka: idempotent, acknowledged by all in-sync replicas, and awaited until then (K1).

::

    async with KafkaProducer(KafkaSettings(servers="localhost:9092"), happenings=happenings) as producer:
        await producer.send("clicks", b'{"page": "/"}', key=b"visitor-1")           # on return the brokers have it
        await producer.send_many("clicks", [(b"visitor-1", b"..."), (b"visitor-2", b"...")])

Guarantees: on return every event is on all in-sync replicas, once; events of one key, sent by one task, keep their
order, also over a broker that dies and comes back. A full queue makes the caller wait (first come, first served) and
drops nothing. Unavailable: the brokers took it within no ``delivery_timeout_s``; it may be there nevertheless. A caller
that is cancelled does not take back what was sent.

One thread polls the driver. Per event Python does one dictionary and one callback; chunks of ``CHUNK_EVENTS`` share
the rest: 8 µs of CPU per event of 1 KB, driver included, with 6 for the driver alone (benchmarks: kafka-produce).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from headwater.kit import threads
from headwater.kit.errors import HeadwaterError, Lost, Rejected, Unavailable
from headwater.kit.happenings import Happenings
from headwater.lane.kafka import driver
from headwater.lane.kafka.happenings import KafkaUnreachable
from headwater.lane.kafka.settings import KafkaSettings, ProduceSettings

CHUNK_EVENTS = 5_000
POLL_S = 0.2
CLOSE_S = 10.0

Record = tuple[bytes | None, bytes]
"""Key and value; without a key the driver chooses the partition."""


class Room:
    """What may be on its way at once. Who asks first gets it first; only the loop's thread uses it."""

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self.events = events_max
        self.size = bytes_max
        self.waiting: deque[tuple[asyncio.Future[None], int, int]] = deque()

    async def take(self, events: int, size: int) -> None:
        """Wait until there is room. On cancellation nothing was taken."""
        if not self.waiting and self.fits(events, size):
            self.change(-events, -size)
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((turn, events, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(events, size)
            else:
                self.admit()
            raise

    def give(self, events: int, size: int) -> None:
        self.change(events, size)
        self.admit()

    def fits(self, events: int, size: int) -> bool:
        return events <= self.events and size <= self.size

    def change(self, events: int, size: int) -> None:
        self.events += events
        self.size += size

    def admit(self) -> None:
        while self.waiting:
            turn, events, size = self.waiting[0]
            if not turn.cancelled():
                if not self.fits(events, size):
                    return
                self.change(-events, -size)
                turn.set_result(None)
            self.waiting.popleft()


class Chunk:
    """Events that were handed to the driver together. ``delivered`` is called by the thread that polls."""

    def __init__(self, done: asyncio.Future[None], events: int, size: int, ended: list[Chunk]) -> None:
        self.done = done
        self.events = events
        self.size = size
        self.left = events
        self.error: KafkaError | None = None
        self.ended = ended
        self.at = (-1, -1)
        """Partition and offset of the last event."""

    def delivered(self, error: KafkaError | None, message: Any) -> None:
        self.left -= 1
        if error is not None:
            self.error = error
        if not self.left:
            if error is None:
                self.at = (message.partition(), message.offset())
            self.ended.append(self)


class Acknowledged(NamedTuple):
    """Where an event is."""

    partition: int
    offset: int


class KafkaProducer:
    """See the module. Used by one event loop; a context manager that ends with all events acknowledged, or says not."""

    def __init__(
        self,
        settings: KafkaSettings,
        produce: ProduceSettings | None = None,
        *,
        happenings: Happenings | None = None,
    ) -> None:
        self.settings = produce or ProduceSettings()
        self.happenings = happenings
        self.room = Room(self.settings.queue_events_max, self.settings.queue_bytes_max)
        self.chunk_bytes = min(4 * 1024 * 1024, self.settings.queue_bytes_max)
        self.chunk_events = min(CHUNK_EVENTS, self.settings.queue_events_max)
        self.ended: list[Chunk] = []
        self.refused: deque[tuple[Chunk, int, KafkaError]] = deque()
        self.open: set[Chunk] = set()
        self.closing = self.stopped = False
        self.failure: HeadwaterError | None = None
        self.driver = confluent_kafka.Producer(driver.producer(settings, self.settings, self.told))
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threads.Thread | None = None

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self.thread = threads.Thread("kafka-produce")
        self.thread(self.poll)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> Acknowledged:
        """Send one event; on return the brokers have it. ``partition`` overrules the key's."""
        size = self.size_of(key, value)
        chunk = await self.begin(1, size)
        words: dict[str, Any] = {} if partition is None else {"partition": partition}
        if headers:
            words["headers"] = list(headers.items())
        try:
            self.driver.produce(topic, value, key, on_delivery=chunk.delivered, **words)
        except KafkaException as error:
            self.finish(chunk)
            raise driver.translate(error, f"producing to {topic}") from error
        await self.acknowledged([chunk], topic)
        return Acknowledged(*chunk.at)

    async def send_many(self, topic: str, records: Sequence[Record], *, partition: int = -1) -> Acknowledged:
        """Send events in this order; on return the brokers have all of them. Where the last one is, which says
        something of the others when ``partition`` is given; (-1, -1) where there was none.

        Rejected: one is too large; none was sent. Unavailable: some may be there and some not.
        """
        sizes = [self.size_of(*record) for record in records]
        chunks: list[Chunk] = []
        for first, end, size in cut(sizes, self.chunk_events, self.chunk_bytes):
            chunk = await self.begin(end - first, size)
            chunks.append(chunk)
            messages = [{"key": key, "value": value} for key, value in records[first:end]]
            self.hand(topic, messages, partition, chunk)
        await self.acknowledged(chunks, topic)
        return Acknowledged(*chunks[-1].at) if chunks else Acknowledged(-1, -1)

    def hand(self, topic: str, messages: list[dict[str, Any]], partition: int, chunk: Chunk) -> None:
        """To the driver. It takes all of them or says why not for each; there is room, so that is final."""
        taken = self.driver.produce_batch(topic, messages, partition, on_delivery=chunk.delivered)
        if taken == len(messages):
            return
        error = next(message["_error"] for message in messages if "_error" in message)
        self.refused.append(
            (chunk, len(messages) - taken, error)
        )  # the other thread counts, so that one does

    def size_of(self, key: bytes | None, value: bytes) -> int:
        size = len(value) + (len(key) if key else 0)
        if size > self.settings.event_bytes_max:
            raise Rejected(
                f"an event of {size} bytes; at most {self.settings.event_bytes_max} may be sent",
                code="kafka_event_size",
                help="event_bytes_max of the producer, and message.max.bytes of the topic",
            )
        return size

    async def begin(self, events: int, size: int) -> Chunk:
        """Wait for room."""
        await self.room.take(events, size)
        if self.closing or self.failure is not None or self.loop is None:
            self.room.give(events, size)
            raise self.failure or Lost("the producer is closed", code="kafka_closed")
        chunk = Chunk(self.loop.create_future(), events, size, self.ended)
        self.open.add(chunk)
        return chunk

    async def acknowledged(self, chunks: Iterable[Chunk], topic: str) -> None:
        """Wait for all; the first error is raised when all are known."""
        failed: KafkaError | None = None
        for chunk in chunks:
            await chunk.done
            failed = failed or chunk.error
        if failed is not None:
            raise driver.translate(failed, f"producing to {topic}")

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Take nothing more and wait for what is on its way. Unavailable: some was not acknowledged in time."""
        if self.thread is None:
            return
        self.closing = True
        left = [chunk.done for chunk in self.open]
        if left:
            await asyncio.wait(left, timeout=timeout_s)
        unknown = sum(chunk.events for chunk in self.open)
        thread, self.thread, self.stopped = self.thread, None, True
        await asyncio.get_running_loop().run_in_executor(None, thread.close)
        for chunk in list(self.open):
            chunk.error = KafkaError(KafkaError._TIMED_OUT)
            self.finish(chunk)
        if unknown:
            raise Unavailable(
                f"{unknown} events were not acknowledged within {timeout_s} s", code="kafka_close_timeout"
            )

    # -- the thread that polls -----------------------------------------------------------------------------------------

    def poll(self) -> None:
        while not self.stopped:
            self.driver.poll(POLL_S)
            while self.refused:
                chunk, count, error = self.refused.popleft()
                for _ in range(count):
                    chunk.delivered(error, None)
            if self.ended:
                self.tell_ended()

    def tell_ended(self) -> None:
        ended = self.ended[:]
        del self.ended[: len(ended)]
        assert self.loop is not None
        try:
            self.loop.call_soon_threadsafe(self.finish, *ended)
        except RuntimeError:
            pass  # the loop is gone, and with it those who waited

    def finish(self, *chunks: Chunk) -> None:
        """On the loop: give back the room, wake those who wait."""
        for chunk in chunks:
            if chunk not in self.open:
                continue
            self.open.remove(chunk)
            self.room.give(chunk.events, chunk.size)
            if not chunk.done.done():
                chunk.done.set_result(None)

    def told(self, error: KafkaError) -> None:
        """An error that belongs to no event."""
        if driver.is_fatal(error):
            self.failure = driver.translate(error, "producing")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self.happenings and self.loop:
            self.loop.call_soon_threadsafe(self.happenings.emit, KafkaUnreachable(error=error.str()))


def cut(sizes: Sequence[int], events_max: int, bytes_max: int) -> Iterable[tuple[int, int, int]]:
    """First, end and size of pieces within both bounds; a size that is over them is a piece of its own."""
    first = size = 0
    for at, one in enumerate(sizes):
        if at > first and (at - first == events_max or size + one > bytes_max):
            yield first, at, size
            first, size = at, 0
        size += one
    if sizes:
        yield first, len(sizes), size
