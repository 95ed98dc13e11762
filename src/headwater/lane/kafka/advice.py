"""An advice listener that keeps undeliverable events of a channel in a Kafka topic (the seed's figure; R3).

::

    async with (
        KafkaAdvice(SpoolSettings(topic="shop.spool.clicks"), kafka, identity, happenings=happenings) as advice,
        OutboundChannel("clicks", identity, watch.directory, advice=advice) as clicks,
    ):

Guarantees: what ``keep`` returned for is on all in-sync replicas, in order, behind all that was kept in that partition
before. A lane is a partition. How far the replay is, is what the replayers' group has committed (replay.py), so a
producer needs nothing of them but that. Records are signed (cluster/channels/advice).

The topic and the one of dead letters, ``<topic>.dead``, are made where they are not there. Give them a retention longer
than a consumer may be away: what the brokers forget before it was replayed is told by the replayer
(``kafka_offsets_skipped``), and gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import confluent_kafka
import msgspec
from confluent_kafka import KafkaException, TopicPartition

from headwater.cluster.channels import advice as kept
from headwater.cluster.channels.advice import Place, Undelivered
from headwater.kit import retry
from headwater.kit.errors import Broken, HeadwaterError, Lost, Rejected, Unavailable
from headwater.kit.happenings import Happenings
from headwater.kit.retry import Backoff
from headwater.lane.kafka import driver, topic
from headwater.lane.kafka.produce import KafkaProducer
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings, ProduceSettings
from headwater.peer.connection import Identity

ASK_S = 5.0
LEFT = Backoff(first_s=0.4, ceiling_s_max=2.0, attempts_max=10, total_s_max=30.0)
SCAN_EVENTS = 5_000
SCAN_S = 0.2
SCAN_S_MAX = 60.0
T = TypeVar("T")


class SpoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where undeliverable events are kept. The same for producers and replayers."""

    topic: str
    """Name of the Kafka topic; of one channel, and used by nobody else."""
    partitions: int = 16
    """Of a topic that is made. Consumers whose events share a partition wait for each other's replay."""
    replication: int = 0
    """Replicas of a topic that is made; 0 is what the brokers take by themselves."""
    group: str = ""
    """Name of the replayers' group; empty: `<topic>.replay`."""
    event_bytes_max: int = 900_000
    """A larger event is rejected by the channel. Brokers take 1 MiB unless they are told otherwise."""

    def __post_init__(self) -> None:
        if not self.topic:
            raise ValueError("topic: expected a name, got nothing")
        if self.partitions < 1 or self.event_bytes_max < 1:
            raise ValueError("partitions, event_bytes_max: expected at least 1")

    @property
    def replayers(self) -> str:
        return self.group or f"{self.topic}.replay"

    @property
    def dead(self) -> str:
        """The topic of dead letters."""
        return f"{self.topic}.dead"


class KafkaAdvice:
    """See the module. A ``cluster.channels.advice.AdviceListener``; a context manager."""

    def __init__(
        self, settings: SpoolSettings, kafka: KafkaSettings, identity: Identity, *, happenings: Happenings
    ) -> None:
        self.settings = settings
        self.kafka = kafka
        self.identity = identity
        self.key = kept.key_of(identity)
        self.happenings = happenings
        self.lanes = settings.partitions
        self.producer = self.new_producer()
        consume = ConsumeSettings(group=settings.replayers, topics=(settings.topic,), member="asks")
        self.asker = confluent_kafka.Consumer(driver.asker(kafka, consume))
        self.asking = asyncio.Lock()

    @property
    def event_bytes_max(self) -> int:
        return self.settings.event_bytes_max

    async def __aenter__(self) -> Self:
        """Misconfigured: the topic may not be used or made. Unavailable: the brokers do not answer."""
        try:
            self.lanes = await self.ask(lambda: prepare(self.kafka, self.settings))
        except BaseException:
            await asyncio.get_running_loop().run_in_executor(None, self.asker.close)
            raise
        await self.producer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.producer.close()
        finally:
            await asyncio.get_running_loop().run_in_executor(None, self.asker.close)

    async def keep(self, lane: int, events: Sequence[Undelivered]) -> int:
        records = [(str(event.slot).encode(), kept.encode(event, self.key)) for event in events]
        try:
            last = await self.producer.send_many(self.settings.topic, records, partition=lane)
        except (Broken, Lost) as error:
            await self.renew()
            raise Unavailable(f"a new producer was needed: {error.message}", code=error.code) from error
        return last.offset

    async def replayed(self) -> Mapping[int, int]:
        return await self.ask(self.committed)

    async def left(self, topic: str) -> Mapping[int, Place]:
        """Brokers learn of a new topic one after the other: asked a few times."""
        return await retry.call(
            lambda: self.ask(lambda: self.scan(topic)), LEFT, self.identity.clock, self.identity.rng
        )

    # -- blocking, one at a time, in a thread --------------------------------------------------------------------------

    async def ask(self, question: Callable[[], T]) -> T:
        async with self.asking:
            try:
                return await asyncio.get_running_loop().run_in_executor(None, question)
            except KafkaException as error:
                raise driver.translate(error, f"spool {self.settings.topic}") from error

    def committed(self) -> dict[int, int]:
        """Where the replayers stand; 0 where they have not begun."""
        wanted = [TopicPartition(self.settings.topic, lane) for lane in range(self.lanes)]
        found = self.asker.committed(wanted, ASK_S)
        for one in found:
            if one.error is not None:
                raise driver.translate(one.error, f"offsets of {self.settings.topic}/{one.partition}")
        return {one.partition: max(0, one.offset) for one in found}

    def scan(self, topic: str) -> dict[int, Place]:
        """Slot → the last event of this channel that is not replayed."""
        begins = self.committed()
        ends: dict[int, int] = {}
        for lane, begin in begins.items():
            low, high = self.asker.get_watermark_offsets(TopicPartition(self.settings.topic, lane), ASK_S)
            if max(low, begin) < high:
                begins[lane], ends[lane] = max(low, begin), high
        found: dict[int, Place] = {}
        self.asker.assign([TopicPartition(self.settings.topic, lane, begins[lane]) for lane in ends])
        try:
            self.read_to(ends, topic, found)
        finally:
            self.asker.unassign()
        return found

    def read_to(self, ends: dict[int, int], topic: str, found: dict[int, Place]) -> None:
        """Read until each lane's end. Unavailable: it takes too long."""
        idle = 0
        while ends:
            messages = self.asker.consume(SCAN_EVENTS, SCAN_S)
            idle = 0 if messages else idle + 1
            if idle * SCAN_S > SCAN_S_MAX:
                raise Unavailable(
                    f"the brokers do not give what {self.settings.topic} has", code="spool_scan"
                )
            for message in messages:
                if (error := message.error()) is not None:
                    raise driver.translate(error, f"reading {self.settings.topic}")
                lane, offset = message.partition(), message.offset()
                assert lane is not None
                assert offset is not None
                self.note(message, Place(lane, offset), topic, found)
                if offset + 1 >= ends.get(lane, 1 << 62):
                    del ends[lane]

    def note(self, message: Any, place: Place, topic: str, found: dict[int, Place]) -> None:
        try:
            event = kept.decode(message.value() or b"", self.key)
        except Rejected:
            return  # the replayer sets it aside
        if event.topic == topic:
            found[event.slot] = place

    # -- the producer --------------------------------------------------------------------------------------------------

    def new_producer(self) -> KafkaProducer:
        size = self.settings.event_bytes_max + kept.HEAD_BYTES_MAX
        produce = ProduceSettings(event_bytes_max=size, delivery_timeout_s=30.0)
        return KafkaProducer(self.kafka, produce, happenings=self.happenings)

    async def renew(self) -> None:
        """A producer that is at its end is no use any more."""
        former, self.producer = self.producer, self.new_producer()
        await self.producer.__aenter__()
        try:
            await former.close(1.0)
        except HeadwaterError:
            pass  # what it did not get acknowledged is sent again


def prepare(kafka: KafkaSettings, settings: SpoolSettings) -> int:
    """Let both topics be there; how many partitions the spool has. Blocks."""
    for name in (settings.topic, settings.dead):
        topic.ensure(kafka, name, settings.partitions, settings.replication)
    asker = confluent_kafka.Producer(driver.base(kafka, lambda _: None))
    for _ in range(20):  # brokers learn of a new topic one after the other
        about = asker.list_topics(settings.topic, ASK_S).topics[settings.topic]
        if about.error is None and about.partitions:
            return len(about.partitions)
        asker.poll(SCAN_S)
    raise Unavailable(f"the topic {settings.topic} does not come up", code="kafka_topic")
