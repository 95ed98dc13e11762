"""Reads the topic of undeliverable events and delivers them to the consumer cluster (the seed's figure; R5, R6).

::

    async with Watch("clicks", identity, store) as watch:
        replayer = KafkaReplayer("clicks", spool, kafka, identity, watch.directory, happenings=happenings)
        await replayer.run()                    # until it is cancelled, or `stop` is called

Any number of replayers share the partitions as a group does (K2): each is read by one of them at a time. An offset is
committed when everything before it was acknowledged by the consumers or is a dead letter; so events may be delivered
again after a crash of the replayer, and consumers know them again.

Dead letters go to ``<topic>.dead`` with the error and the attempts in their headers: events that a handler raises on
``attempts_max`` times and then alone, events older than ``age_s_max``, and records that no producer of this cluster
has written. ``opened`` reads one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headwater.cluster.channels import advice as kept
from headwater.cluster.channels.advice import Undelivered
from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.channels.replay import Known, Replay, ReplaySettings
from headwater.cluster.channels.stops import Stops
from headwater.cluster.channels.topic import Discover
from headwater.kit.errors import Rejected
from headwater.kit.happenings import Happenings
from headwater.lane.kafka.advice import SpoolSettings, prepare
from headwater.lane.kafka.consume import KafkaConsumer
from headwater.lane.kafka.happenings import KafkaDeadLetter
from headwater.lane.kafka.produce import KafkaProducer
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings, ProduceSettings
from headwater.lane.kafka.sink import Advance, Answer, Event, Sink
from headwater.peer.connection import Identity

BATCH_EVENTS = 512
BATCH_BYTES = 256 * 1024
PENDING_EVENTS = 1 << 20
PENDING_BYTES = 1 << 30
"""What is pending is what the partitions have given: a batch each."""


class KafkaReplayer:
    """See the module. One run."""

    def __init__(
        self,
        topic: str,
        spool: SpoolSettings,
        kafka: KafkaSettings,
        identity: Identity,
        discover: Discover,
        *,
        happenings: Happenings,
        settings: ReplaySettings | None = None,
        stops: Stops | None = None,
    ) -> None:
        self.topic = topic
        self.spool = spool
        self.kafka = kafka
        self.identity = identity
        self.happenings = happenings
        self.settings = settings or ReplaySettings()
        self.channel = OutboundChannel(
            topic,
            identity,
            discover,
            pending_events_max=PENDING_EVENTS,
            pending_bytes_max=PENDING_BYTES,
            eager=True,
        )
        self.replay = Replay(self.channel, self.settings, stops)
        self.consumer: KafkaConsumer | None = None
        self.stopping = False

    async def run(self) -> None:
        """Replay until cancelled or stopped. Lost: another process has this identity's node id in the group;
        Misconfigured: the topic may not be used; Unavailable: the brokers were not there at the start."""
        size = self.spool.event_bytes_max + kept.HEAD_BYTES_MAX
        async with (
            KafkaProducer(
                self.kafka, ProduceSettings(event_bytes_max=size), happenings=self.happenings
            ) as dead,
            self.channel,
        ):
            await asyncio.to_thread(prepare, self.kafka, self.spool)
            self.consumer = KafkaConsumer(
                self.kafka,
                self.consume_settings(),
                ReplaySink(self),
                clock=self.identity.clock,
                rng=self.identity.rng,
                happenings=self.happenings,
                dead_letters=dead,
            )
            if self.stopping:
                return
            await self.consumer.run()

    def stop(self) -> None:
        """Let ``run`` come to its end; what was read and not delivered is left to the next."""
        self.stopping = True
        if self.consumer is not None:
            self.consumer.stop()

    def consume_settings(self) -> ConsumeSettings:
        return ConsumeSettings(
            group=self.spool.replayers,
            topics=(self.spool.topic,),
            member=self.identity.node,
            batch_events_max=BATCH_EVENTS,
            batch_bytes=BATCH_BYTES,
            batch_age_s=0.05,
            commit_interval_s=0.2,
            retries_max=self.settings.attempts_max - 1,
            retry_ceiling_s_max=max(0.1, self.settings.backoff_s_max),
            dead_letter_topic=self.spool.dead,
        )


class Turn:
    """What is known of the events that a partition gives now, should some of them come again."""

    def __init__(self) -> None:
        self.first = -1
        self.tries = 0
        self.known: Known = set()
        """Those that were acknowledged."""
        self.aside: set[int] = set()
        """Offsets of those that are dead letters already."""

    def begins(self, first: int) -> int:
        """A batch from this offset on; how often it came."""
        self.tries = self.tries + 1 if first == self.first else 1
        self.first = first
        return self.tries

    def ends(self, events: Sequence[Event], undelivered: Sequence[Undelivered]) -> None:
        """These do not come again."""
        self.known -= {(event.producer, event.number) for event in undelivered}
        self.aside -= {event.offset for event in events}


class ReplaySink(Sink):
    """Micro-batches of the spool, to ``Replay``."""

    def __init__(self, replayer: KafkaReplayer) -> None:
        self.replayer = replayer
        self.key = kept.key_of(replayer.identity)
        self.turns: dict[int, Turn] = {}

    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        turn = self.turns.setdefault(partition, Turn())
        tries = turn.begins(first)
        undelivered = []
        for event in events:
            try:
                undelivered.append(self.read(event))
            except Rejected as error:
                if event.offset not in turn.aside:
                    await self.set_aside(topic, partition, event, error)
                    turn.aside.add(event.offset)
        await self.replayer.replay.deliver(undelivered, tries, turn.known)
        turn.ends(events, undelivered)
        return Advance()

    def read(self, event: Event) -> Undelivered:
        """The event as it was. Rejected: it is none, or too old."""
        undelivered = kept.decode(event.value, self.key)
        if undelivered.topic != self.replayer.topic:
            raise Rejected(f"an event of the topic {undelivered.topic!r}", code="advice_topic")
        if self.replayer.replay.is_expired(undelivered):
            raise Rejected(f"older than {self.replayer.settings.age_s_max:.0f} s", code="advice_expired")
        return undelivered

    async def set_aside(self, topic: str, partition: int, event: Event, error: Rejected) -> None:
        """What can never be delivered, at once."""
        assert self.replayer.consumer is not None
        await self.replayer.consumer.bury(topic, partition, event, error, 1)
        self.replayer.consumer.emit(KafkaDeadLetter(topic, partition, event.offset, str(error), 1))

    async def on_revoke(self, topic: str, partition: int, deadline_s: float) -> Answer | None:
        self.turns.pop(partition, None)
        return None

    async def on_lost(self, topic: str, partition: int) -> None:
        self.turns.pop(partition, None)


def opened(letter: bytes, identity: Identity) -> Undelivered:
    """The event in a dead letter, to look at or to send again as a new one. Rejected: no producer of this cluster
    wrote it."""
    return kept.decode(letter, kept.key_of(identity))
