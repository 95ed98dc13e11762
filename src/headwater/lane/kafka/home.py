"""The home side of the Kafka lane: this node's raw log goes to the topic, in its order, cut by cut.

The stream is the one that an owner would get over the direct lane (lane/home), with all partitions in it; all records
of a home have one key, hence one Kafka partition, so their order stands. A cut is sent when the one before is on all
in-sync replicas; what is accepted meanwhile is the next cut. Kafka being down is a backlog in the raw log: nobody who
accepts events waits for anything here, and retention keeps what owners have not processed (INV-LANE-2).

The cursor, up to where Kafka has everything, is noted in ``kafka/cursor``. It is soft: a restart begins from it or any
older one, and readers drop by position what they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headwater.config.report import replace
from headwater.event.position import EMPTY, Vector, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import read_whole
from headwater.kit.errors import Broken, HeadwaterError
from headwater.kit.happenings import Happening
from headwater.lane import wire
from headwater.lane.home import Now, RawLog, Stream
from headwater.lane.kafka.happenings import KafkaLaneGoesOn, KafkaLaneWaits
from headwater.lane.kafka.record import BODY_BYTES, Writing

CREDIT = 1 << 62
POLL_S = 0.05
RETRY_S_MIN, RETRY_S_MAX = 0.2, 5.0
NOTE_S = 1.0
WAITS_S = 5.0
"""A cut that Kafka has not taken for so long is told."""


class Send(Protocol):
    """What a KafkaProducer does."""

    async def send_many(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes]], *, partition: int = -1
    ) -> object: ...


class KafkaHome:
    """Produces this node's raw log."""

    def __init__(
        self,
        raw: RawLog,
        now: Now,
        clock: Clock,
        emit: Callable[[Happening], None],
        *,
        home: int,
        topic: str,
        key: bytes,
        path: str,
    ) -> None:
        """``key``: what records are signed with; ``path``: the file of the cursor."""
        self.raw = raw
        self.now = now
        self.clock = clock
        self.emit = emit
        self.home = home
        self.topic = topic
        self.key = key
        self.path = path
        self.cursor = self.noted()
        self.noted_ns = 0
        self.trouble = ""
        self.since_ns: int | None = None
        """Since when Kafka has not taken what there is."""
        self.told = False
        self.works_ns: int | None = None
        """Since when Kafka has taken all there was."""

    def noted(self) -> Vector:
        """The cursor of before; the beginning where it cannot be read."""
        try:
            return Vector.decode(read_whole(self.raw.disk, self.path))
        except (FileNotFoundError, Broken):
            return EMPTY

    async def produce(self, producer: Send) -> None:
        """Send all there is, and go on, until cancelled. HeadwaterError: this producer is at its end."""
        asked = wire.Open(
            stream="kafka",
            partitions=list(range(self.raw.partitions)),
            origin=self.cursor.encode(),
            credit=CREDIT,
        )
        stream = Stream(self.raw, asked, self.now, body_bytes=BODY_BYTES)
        writing = Writing(self.home, self.now().node_time_ns, self.key, self.cursor)
        name = self.home.to_bytes(8, "big")
        try:
            while True:
                frames = await asyncio.to_thread(stream.turn)
                if frames:
                    self.since_ns = self.since_ns or self.clock.boot_ns()
                    records = [(name, record) for record in writing.records(frames)]
                    await producer.send_many(self.topic, records)
                    self.taken(stream.stands)
                if not stream.full:
                    await self.clock.sleep(POLL_S)
        finally:
            await asyncio.to_thread(stream.close)

    def taken(self, stands: Mapping[WriterId, object]) -> None:
        """Kafka has all up to here."""
        self.cursor = Vector({**self.cursor.entries, **stands})  # type: ignore[dict-item]
        if self.works_ns is None or self.says:
            self.works_ns = self.clock.boot_ns()
        self.since_ns, self.trouble = None, ""
        if self.told:
            self.told = False
            self.emit(KafkaLaneGoesOn(topic=self.topic))
        if self.clock.boot_ns() - self.noted_ns >= NOTE_S * 1e9:
            self.note()

    def note(self) -> None:
        """Keep the cursor."""
        self.noted_ns = self.clock.boot_ns()
        replace(self.raw.disk, self.path, self.cursor.encode())

    @property
    def waiting_s(self) -> float:
        """For how long Kafka has not taken what there is."""
        return 0.0 if self.since_ns is None else (self.clock.boot_ns() - self.since_ns) / 1e9

    @property
    def works_s(self) -> float:
        """For how long Kafka has taken all there was."""
        return 0.0 if self.works_ns is None or self.says else (self.clock.boot_ns() - self.works_ns) / 1e9

    @property
    def says(self) -> str:
        """Why events wait here; empty where they do not."""
        if self.waiting_s <= WAITS_S:
            return ""
        why = self.trouble or "no broker acknowledges anything"
        return f"Kafka takes no events since {self.waiting_s:.0f} s, they wait in the raw log: {why}"

    def look(self) -> None:
        """Tell it once when Kafka takes nothing."""
        if self.says and not self.told:
            self.told = True
            self.emit(KafkaLaneWaits(topic=self.topic, reason=self.says))


async def again_and_again(
    work: Callable[[], object], clock: Clock, failed: Callable[[HeadwaterError | OSError], None]
) -> None:
    """Run it until cancelled; after an error once more, with back-off."""
    wait_s = RETRY_S_MIN
    while True:
        began_ns = clock.boot_ns()
        try:
            await work()  # type: ignore[misc]
        except (HeadwaterError, OSError) as error:
            failed(error)
        lasted = clock.boot_ns() - began_ns > RETRY_S_MAX * 1e9
        wait_s = RETRY_S_MIN if lasted else min(wait_s * 2, RETRY_S_MAX)
        await clock.sleep(wait_s)
