"""The Kafka lane of one node (protocol.md §8): its own raw log goes to a topic, those of the others come from it.

Home: ``home``. Owner: one consumer reads the whole topic into the ``spool``; mirrors (lane/mirror) follow a home by the
spool while that covers what they need next, else the home itself over the direct lane (FETCH of protocol.md §6), else
whoever has copies. Below them nothing knows of Kafka: positions stay (writer, log, seq), and what comes twice is
dropped by them, so the offsets of the group are a hint for tools only.

Why whole blocks, and not one Kafka partition for each of ours: a batch of several events is one record of the log, and
belongs to many partitions. So every node reads the whole topic, once.

A topic that lost something (retention, made anew) costs nothing but a detour: the spool begins a new stretch behind the
gap, and mirrors fetch what lies before it from the home.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from headwater.event.position import Position, WriterId
from headwater.kit.clock import Clock
from headwater.kit.errors import Busy, HeadwaterError, Rejected, Unavailable
from headwater.kit.happenings import Happenings
from headwater.kit.rng import Rng
from headwater.lane.copies_read import Away
from headwater.lane.kafka import record as records
from headwater.lane.kafka import topic as topics
from headwater.lane.kafka.consume import KafkaConsumer
from headwater.lane.kafka.happenings import KafkaLaneRefused
from headwater.lane.kafka.home import KafkaHome, again_and_again
from headwater.lane.kafka.produce import KafkaProducer
from headwater.lane.kafka.record import Record
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings, ProduceSettings
from headwater.lane.kafka.sink import Advance, Answer, Event, Sink
from headwater.lane.kafka.spool import Brief, Spool, SpoolHome, Stands, loopback
from headwater.lane.mirror import Source, node_of
from headwater.lane.wire import Connection

PRODUCE = ProduceSettings(delivery_timeout_s=0, queue_bytes_max=64 * 1024 * 1024)
BATCH_AGE_S = 0.05
BATCH_BYTES = 2 * 1024 * 1024
NOTE_S = 1.0
CLOSE_S = 0.2
SPEAKS_S = 10.0
"""A home of which nothing comes for so long, while Kafka works, does not speak through it."""
REFUSED_SAID_S = 30.0


class SpoolSink(Sink):
    """Records of the topic into the spool."""

    def __init__(self, spool: Spool, me: str, key: bytes, refused: Callable[[Rejected], None]) -> None:
        self.spool = spool
        self.me = int(me, 16)
        self.key = key
        self.refused = refused

    async def on_assign(self, topic: str, partition: int, first: int) -> int | None:
        """From where we stand; what the group has is of no matter."""
        return self.spool.offsets.get(partition, first)

    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        """Durable in the spool on return. Unavailable: there is no room."""
        by_home: dict[int, list[Record]] = {}
        for event in events:
            try:
                record = records.decode(event.value, self.key)
            except Rejected as error:
                self.refused(error)
                continue
            if record.home != self.me:
                by_home.setdefault(record.home, []).append(record)
        for home, some in by_home.items():
            try:
                for one in await self.spool.accept(f"{home:016x}", some):
                    self.refused(one)
            except (Busy, OSError) as error:
                raise Unavailable(f"the spool takes nothing: {error}", code="spool_full") from error
        self.spool.offsets[partition] = last + 1
        return Advance()


class NoDeadLetters:
    """The sink refuses nothing for good; whatever it fails on is fetched from its home."""

    def __init__(self, refused: Callable[[Rejected], None]) -> None:
        self.refused = refused

    async def send(
        self, topic: str, value: bytes, *, key: bytes | None, headers: Mapping[str, bytes] | None
    ) -> None:
        """Leave it out."""
        why = (headers or {}).get("headwater-error", b"").decode(errors="replace")
        self.refused(Rejected(f"a record cannot be taken: {why}", code="lane_record"))


class KafkaLane:
    """Both sides, for one node."""

    def __init__(
        self,
        home: KafkaHome,
        spool: Spool,
        kafka: KafkaSettings,
        *,
        me: str,
        group: str,
        partitions: int,
        replication: int,
        away: Away,
        direct: Source,
        clock: Clock,
        rng: Rng,
        happenings: Happenings,
    ) -> None:
        """``partitions``, ``replication``: of a topic that is not there. ``direct``: whom a mirror would follow without
        Kafka."""
        self.home = home
        self.spool = spool
        self.kafka = kafka
        self.me = me
        self.partitions = partitions
        self.replication = replication
        self.away = away
        self.direct = direct
        self.clock = clock
        self.rng = rng
        self.happenings = happenings
        self.consume = ConsumeSettings(
            group=group,
            topics=(home.topic,),
            member=me,
            batch_age_s=BATCH_AGE_S,
            batch_bytes=BATCH_BYTES,
            batch_bytes_max=BATCH_BYTES,
            commit_interval_s=NOTE_S,
        )
        self.consumer: KafkaConsumer | None = None
        self.trouble = ""
        """Of reading."""
        self.refused = 0
        self.refused_ns = -int(REFUSED_SAID_S * 1e9)
        self.by: dict[str, str] = {}
        """By which way a mirror followed each home last: `kafka`, `direct` or `copies`."""

    def works(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """What runs until cancelled."""
        return {"kafka produce": self.produce_forever, "kafka consume": self.consume_forever}

    async def produce_forever(self) -> None:
        """The home side."""

        async def work() -> None:
            await self.ensure_topic()
            producer = KafkaProducer(self.kafka, PRODUCE, happenings=self.happenings)
            await producer.__aenter__()
            try:
                await self.home.produce(producer)
            finally:
                with contextlib.suppress(Unavailable):  # what was not acknowledged is sent again
                    await producer.close(CLOSE_S)

        def failed(error: HeadwaterError | OSError) -> None:
            self.home.trouble = str(error)
            self.home.since_ns = self.home.since_ns or self.clock.boot_ns()

        await again_and_again(work, self.clock, failed)

    async def consume_forever(self) -> None:
        """The owner side."""

        async def work() -> None:
            await self.ensure_topic()
            sink = SpoolSink(self.spool, self.me, self.home.key, self.refuse)
            self.consumer = KafkaConsumer(
                self.kafka,
                self.consume,
                sink,
                clock=self.clock,
                rng=self.rng,
                happenings=self.happenings,
                dead_letters=NoDeadLetters(self.refuse),
            )
            self.trouble = ""
            await self.consumer.run()

        def failed(error: HeadwaterError | OSError) -> None:
            self.trouble = str(error)

        await again_and_again(work, self.clock, failed)

    async def ensure_topic(self) -> None:
        """The topic is there."""
        await asyncio.to_thread(topics.ensure, self.kafka, self.home.topic, self.partitions, self.replication)

    def refuse(self, error: Rejected) -> None:
        """Something in the topic is not taken; told now and then."""
        self.refused += 1
        now_ns = self.clock.boot_ns()
        if now_ns - self.refused_ns >= REFUSED_SAID_S * 1e9:
            self.refused_ns = now_ns
            self.happenings.emit(
                KafkaLaneRefused(topic=self.home.topic, records=self.refused, reason=str(error))
            )

    # -- mirrors

    async def source(self, home: str, stands: Stands) -> tuple[str, Connection]:
        """Whom a mirror of a home follows now, for a while. Unavailable: nobody, now.

        The spool, where it has what comes next and the home speaks through Kafka, or has spoken. A home that is there
        and does not, while Kafka works for us, is followed itself: its own way to Kafka is cut, or it is not told to
        use it. While Kafka does not work at all, mirrors wait for it.
        """
        spooled = self.spool.homes.get(home)
        if spooled is not None and not any(spooled.whole):
            spooled = None  # its first cut is still coming
        covered = spooled is not None and spooled.covers(stands)
        if spooled is not None and covered and (self.speaks(spooled) or spooled.has_more(stands)):
            self.by[home] = "kafka"
            return home, loopback(self.spool, spooled, self.home.raw.partitions, self.me, self.clock)
        if not self.away(home) and (covered or spooled is None) and self.home.works_s < SPEAKS_S:
            raise Unavailable(f"nothing of node {home} comes through Kafka", code="kafka_waits")
        node, connection = await self.direct(home, stands)
        self.by[home] = "direct" if node == home else "copies"
        return node, Brief(connection, self.clock)

    def speaks(self, home: SpoolHome) -> bool:
        """Whether something of a home, which is there, has just come; each says something every second."""
        return not self.away(home.node) and self.clock.boot_ns() - home.heard_ns < SPEAKS_S * 1e9

    def lacking(
        self, needed: Mapping[WriterId, tuple[Position, Position]]
    ) -> dict[WriterId, tuple[Position, Position]]:
        """Of these stretches those that the spool does not have."""
        left = {}
        for writer, (first, last) in needed.items():
            here = self.spool.stretch(writer, node_of(writer))
            if here is None or not here[0] <= first <= last <= here[1]:
                left[writer] = first, last
        return left

    # -- each second

    async def tick(self) -> None:
        """Note where we stand, and make room."""
        self.home.look()
        await asyncio.to_thread(self.spool.note)
        self.spool.make_room()

    @property
    def says(self) -> str:
        """What hinders it, in words; empty where nothing does."""
        return self.home.says or (f"Kafka cannot be read: {self.trouble}" if self.trouble else "")

    def told(self) -> dict[str, Any]:
        """For the report of the process."""
        return {
            "topic": self.home.topic,
            "servers": self.kafka.servers,
            "waiting_s": round(self.home.waiting_s, 1),
            "says": self.says,
            "reads": len(self.consumer.partitions) if self.consumer is not None else 0,
            "spool_bytes": self.spool.bytes,
            "refused": self.refused,
            "by": dict(sorted(self.by.items())),
        }
