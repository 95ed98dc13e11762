"""Events out of Kafka, as micro-batches to a sink that says what is done (K2–K9).

::

    consumer = KafkaConsumer(
        KafkaSettings(servers="localhost:9092"),
        ConsumeSettings(group="loader", topics=("clicks",), member="node-1"),
        Load(), clock=SystemClock(), rng=SystemRng(), happenings=happenings, dead_letters=producer,
    )
    await consumer.run()                    # until it is cancelled, or `stop` is called

Guarantees: at least once. Every event is given to the sink, or is in the dead-letter topic, or was told as skipped. An
offset is committed only when the sink has advanced over everything before it. Order per partition is kept. After a
crash events come again from the last commit on; a sink that keeps its position beside its rows (``Sink.on_assign``)
gets each exactly once.

A thread polls the driver, whatever the sinks do, and runs everything that must happen between two polls: seeks, pauses,
commits, and what the group says (``Poller``). The sinks run on the loop, a worker per partition. ``run`` raises
Lost when another process uses the same member name, Misconfigured when an operator must act, Unavailable when the
brokers were not there at the start; trying again is the caller's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headwater.kit import tasks, threads
from headwater.kit.clock import Clock
from headwater.kit.errors import Busy, HeadwaterError, Misconfigured, Rejected, Unavailable
from headwater.kit.happenings import Happening, Happenings
from headwater.kit.rng import Rng
from headwater.lane.kafka import allocate, begin, driver
from headwater.lane.kafka.happenings import (
    KafkaCommitFailed,
    KafkaOffsetsSkipped,
    KafkaPartitionsLost,
    KafkaPartitionsUnowned,
    KafkaUnreachable,
)
from headwater.lane.kafka.part import Part, event_bytes
from headwater.lane.kafka.rate import Rate
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings
from headwater.lane.kafka.sink import Advance, Event, Sink
from headwater.lane.kafka.work import Worker, said

POLL_EVENTS = 5_000
POLL_S = 0.1
ASK_S = 10.0
"""How long a broker may take to answer a question about offsets."""
ASK_TRIES = 5
T = TypeVar("T")
Place = tuple[str, int]
"""Topic and partition."""


class DeadLetters(Protocol):
    """Where dead letters go; a KafkaProducer is one."""

    async def send(
        self, topic: str, value: bytes, *, key: bytes | None, headers: Mapping[str, bytes] | None
    ) -> object: ...


class KafkaConsumer:
    """See the module. One run; the loop's side of it."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: ConsumeSettings,
        sink: Sink,
        *,
        clock: Clock,
        rng: Rng,
        happenings: Happenings,
        dead_letters: DeadLetters,
    ) -> None:
        self.kafka = kafka
        self.settings = settings
        self.sink = sink
        self.clock = clock
        self.rng = rng
        self.happenings = happenings
        self.dead_letters = dead_letters
        self.rate = Rate(settings.events_per_s_max, clock)
        self.workers: dict[Place, tuple[Worker, asyncio.Task[None]]] = {}
        self.ending = asyncio.Event()
        self.failure: BaseException | None = None

    @property
    def partitions(self) -> list[Place]:
        """What this member reads now."""
        return sorted(self.workers)

    async def run(self) -> None:
        """Read until cancelled or stopped; then finish within ``revoke_deadline_s``, commit, and leave what is left."""
        self.loop = asyncio.get_running_loop()
        self.poller = Poller(self)
        thread = threads.Thread("kafka-consume")
        closed = self.loop.create_future()
        async with tasks.Group("kafka consumer", self.report) as group:
            self.group = group
            thread(lambda: self.poller.run(lambda: self.post(settle, closed)))
            try:
                await self.ending.wait()
            finally:
                await self.release_all([worker.part for worker, _ in self.workers.values()])
                self.poller.stopping = True
                await closed
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Let ``run`` come to its end."""
        self.ending.set()

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.ending.set()

    def report(self, owner: str, name: str, error: BaseException) -> None:
        """A worker failed; ``run`` raises it."""

    def post(self, work: Callable[..., object], *arguments: Any) -> None:
        """From the thread: run on the loop. When the loop is gone nobody is there to hear."""
        try:
            self.loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:
            pass

    def emit(self, happening: Happening) -> None:
        self.happenings.emit(happening)

    # -- partitions come and go ----------------------------------------------------------------------------------------

    async def positions(self, firsts: Mapping[Place, int]) -> list[int | None]:
        """Where the sink wants to begin; ``firsts``: the first offset that each partition has."""
        return [await self.sink.on_assign(*place, first) for place, first in firsts.items()]

    def start(self, parts: Sequence[Part], owned: int, of_all: int) -> None:
        """These partitions are ours."""
        if self.ending.is_set():
            return
        self.rate.owns(owned, of_all)
        for part in parts:
            worker = Worker(
                part,
                self.sink,
                self.rate,
                clock=self.clock,
                rng=self.rng,
                bury=self.bury,
                seek=self.poller.seek,
                emit=self.emit,
            )
            task = self.group.start(f"{part.topic}/{part.partition}", worker.run())
            self.workers[part.topic, part.partition] = worker, task

    def take(self, given: list[tuple[Part, int, list[Event]]]) -> None:
        """Events came: part, epoch, events."""
        for part, epoch, events in given:
            found = self.workers.get((part.topic, part.partition))
            if found is not None and found[0].part is part:
                found[0].add(events, epoch)

    def jump(self, part: Part, offset: int) -> None:
        """What lies before ``offset`` is not there any more."""
        part.jump(offset)
        self.poller.seek(part, offset)

    def committed(self, offsets: list[tuple[Place, int]]) -> None:
        for place, offset in offsets:
            if place in self.workers:
                self.workers[place][0].commit_done(offset)

    async def release_all(self, parts: Sequence[Part]) -> None:
        """Finish these partitions, all at once, within the deadline."""
        await asyncio.gather(*(self.release(part) for part in parts))

    async def release(self, part: Part) -> None:
        """Let the worker end and the sink finish; what does not end in time is cancelled, and the sink told so."""
        found = self.workers.pop((part.topic, part.partition), None)
        if found is None:
            return
        worker, task = found
        until = self.clock.boot_ns() + self.settings.revoke_deadline_s * 1e9
        worker.close()
        await asyncio.wait([task], timeout=self.settings.revoke_deadline_s)
        left_s = (until - self.clock.boot_ns()) / 1e9
        try:
            if not task.done() or task.cancelled() or task.exception() is not None:
                raise TimeoutError
            async with asyncio.timeout(max(0.0, left_s)):
                answer = await self.sink.on_revoke(part.topic, part.partition, left_s)
        except (TimeoutError, Unavailable, Busy):
            await self.discard(part, task)
        else:
            if isinstance(answer, Advance):
                part.advance(part.given - 1 if answer.upto is None else answer.upto)

    async def lose_all(self, parts: Sequence[Part]) -> None:
        """These are somebody else's already."""
        self.emit(KafkaPartitionsLost(self.settings.group, len(parts)))
        for part in parts:
            found = self.workers.pop((part.topic, part.partition), None)
            if found is not None:
                await self.discard(part, found[1])

    async def discard(self, part: Part, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait([task], timeout=self.settings.revoke_deadline_s)
        await self.sink.on_lost(part.topic, part.partition)

    async def bury(self, topic: str, partition: int, event: Event, error: Exception, attempts: int) -> None:
        """An event to the dead-letter topic, with where it was and why (K6)."""
        headers = {name: value for name, value in event.headers if value is not None}
        headers |= {
            "headwater-topic": topic.encode(),
            "headwater-partition": str(partition).encode(),
            "headwater-offset": str(event.offset).encode(),
            "headwater-group": self.settings.group.encode(),
            "headwater-error": said(error).encode(),
            "headwater-attempts": str(attempts).encode(),
        }
        target = self.settings.dead_letter_topic.format(topic=topic)
        try:
            await self.dead_letters.send(target, event.value, key=event.key, headers=headers)
        except Rejected:  # too large for that topic; it can be found where it was
            headers["headwater-left-out-bytes"] = str(len(event.value)).encode()
            await self.dead_letters.send(target, b"", key=event.key, headers=headers)


def settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Poller:
    """The thread's side: the only one that speaks with the driver.

    What the driver calls back (assigned, revoked, lost, told, commit_ended) runs inside its `consume`, and must not ask
    the same handle about topics, offsets or watermarks: the next callback within that `consume` would die in an
    assertion (`CallState_get`, confluent-kafka 2.16). So questions go through `asker`. A handle is used by one thread
    at a time.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.consumer = consumer
        self.settings = consumer.settings
        self.clock = consumer.clock
        self.parts: dict[Place, Part] = {}
        self.epochs: dict[Place, int] = {}
        self.asked: dict[Place, int] = {}
        """Offsets that a seek asked for and that have not come yet."""
        self.wanted: dict[Place, int] = {}
        """The next offset to come."""
        self.received: dict[Place, int] = {}
        """Bytes that were handed on, in all."""
        self.paused: set[Place] = set()
        self.commits: dict[Place, int] = {}
        """What the brokers keep, as far as we know."""
        self.commit_pending = False
        self.commit_at_ns = 0
        self.seeks: SimpleQueue[tuple[Part, int, int]] = SimpleQueue()
        self.counts: dict[str, int] = {}
        self.counted_ns = 0
        self.known: dict[str, begin.Known] = {}
        self.stopping = False
        self.unread = False
        """Whether partitions were made while the whole group was away."""
        self.visitor: Any = None
        self.visit_ends_ns = 0
        self.driver = confluent_kafka.Consumer(
            driver.consumer(consumer.kafka, self.settings, self.told, self.commit_ended)
        )
        self.asker = confluent_kafka.Consumer(driver.asker(consumer.kafka, self.settings))

    def run(self, ended: Callable[[], None]) -> None:
        """The whole life of the thread."""
        try:
            self.join()
            while not self.stopping:
                self.turn()
            self.commit_now(list(self.parts.values()))
        except HeadwaterError as error:
            self.consumer.post(self.consumer.fail, error)
        except KafkaException as error:
            self.consumer.post(self.consumer.fail, driver.translate(error, f"group {self.settings.group}"))
        except BaseException as error:
            self.consumer.post(self.consumer.fail, error)
        finally:
            self.stopping = True
            if self.visitor is not None:
                self.visitor.close()
            self.driver.close()
            self.asker.close()
            ended()

    def turn(self) -> None:
        """Once around."""
        self.run_seeks()
        self.commit_when_due()
        self.flow()
        self.look_at_topics()
        self.nudge()
        messages = self.driver.consume(POLL_EVENTS, POLL_S)
        if messages:
            self.hand_on(messages)

    def told(self, error: KafkaError) -> None:
        """An error that belongs to no partition."""
        if driver.is_fatal(error):
            raise driver.translate(error, f"member {self.settings.member} of group {self.settings.group}")
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.consumer.post(self.consumer.emit, KafkaUnreachable(error=error.str()))

    # -- joining -------------------------------------------------------------------------------------------------------

    def join(self) -> None:
        self.count_partitions()
        for topic in self.settings.topics:
            count = self.counts[topic]
            offsets = self.offsets_of([(topic, n) for n in range(count)])
            has_offsets = any(offset >= 0 for offset in offsets.values())
            self.known[topic] = begin.Known(count, has_offsets)
            self.unread |= has_offsets and any(offset < 0 for offset in offsets.values())
        if self.settings.allocation.mode == "balanced":
            self.driver.subscribe(
                list(self.settings.topics),
                on_assign=self.assigned,
                on_revoke=self.revoked,
                on_lost=self.lost,
            )
        else:
            self.tell_unowned()
            mine = allocate.own(self.settings.allocation, self.settings.member, self.counts)
            self.assigned(
                self.driver, [TopicPartition(topic, n) for topic, numbers in mine.items() for n in numbers]
            )

    def count_partitions(self) -> None:
        for topic in self.settings.topics:
            self.counts[topic] = self.count_of(topic)
        self.counted_ns = self.clock.boot_ns()

    def look_at_topics(self) -> None:
        """Now and then: with a fixed or explicit allocation nobody else would notice new partitions."""
        if self.settings.allocation.mode == "balanced":
            return
        if self.clock.boot_ns() - self.counted_ns < self.settings.metadata_s * 1e9:
            return
        before = dict(self.counts)
        try:
            self.count_partitions()
        except HeadwaterError:
            self.counted_ns = self.clock.boot_ns()
            return
        if self.counts != before:
            self.tell_unowned()
            mine = allocate.own(self.settings.allocation, self.settings.member, self.counts)
            fresh = [(topic, n) for topic, numbers in mine.items() for n in numbers]
            self.assigned(self.driver, [TopicPartition(*place) for place in fresh if place not in self.parts])

    def nudge(self) -> None:
        """Let the group share out anew, where partitions were made while this member was away. A member that comes back
        within its session gets what it had, and its group never looks at the topics again (librdkafka joins with a
        version of the protocol older than KIP-814). A second member that comes and goes makes it look."""
        if self.unread and self.parts and self.settings.allocation.mode == "balanced":
            self.unread = False
            own = driver.consumer(self.consumer.kafka, self.settings, lambda _: None, lambda *_: None)
            del own["group.instance.id"]
            self.visitor = confluent_kafka.Consumer(own)
            self.visit_ends_ns = self.clock.boot_ns() + int(self.settings.session_timeout_s * 1e9)
            self.visitor.subscribe(list(self.settings.topics), on_assign=self.visited)
        if self.visitor is not None:
            self.visitor.poll(0)
            if self.clock.boot_ns() >= self.visit_ends_ns:
                self.visitor.close()
                self.visitor = None

    def visited(self, _: object, partitions: list[TopicPartition]) -> None:
        """The group has looked."""
        self.visit_ends_ns = 0

    def tell_unowned(self) -> None:
        for topic, numbers in allocate.unowned(self.settings.allocation, self.counts).items():
            happening = KafkaPartitionsUnowned(self.settings.group, topic, numbers)
            self.consumer.post(self.consumer.emit, happening)

    def ask(self, question: Callable[[], T]) -> T:
        """A question to the brokers, a few times: they learn of a new topic or partition one after the other."""
        for _ in range(ASK_TRIES - 1):
            try:
                return question()
            except KafkaException as error:
                if self.stopping:
                    raise driver.translate(error, f"group {self.settings.group}") from error
                self.clock.block(0.4)
        return question()

    def offsets_of(self, places: Sequence[Place]) -> dict[Place, int]:
        """The group's offsets; negative where it has none."""
        wanted = [TopicPartition(*place) for place in places]
        found = self.ask(lambda: self.asker.committed(wanted, ASK_S)) if wanted else []
        for one in found:
            if one.error is not None:
                raise driver.translate(one.error, f"offsets of {one.topic}/{one.partition}")
        return {(one.topic, one.partition): one.offset for one in found}

    def watermarks(self, place: Place) -> tuple[int, int]:
        """The first offset that is there, and the one behind the last."""
        low, high = self.ask(lambda: self.asker.get_watermark_offsets(TopicPartition(*place), ASK_S))
        return low, high

    # -- what the group says -------------------------------------------------------------------------------------------

    def assigned(self, _: object, partitions: list[TopicPartition]) -> None:
        """These are ours from now on, beside those that we have."""
        places = [(one.topic, one.partition) for one in partitions]
        counts = {topic: self.count_of(topic) for topic in {topic for topic, _ in places}}
        marks = {place: self.watermarks(place) for place in places}
        firsts = {place: low for place, (low, _) in marks.items()}
        wishes = self.on_loop(self.consumer.positions(firsts), ASK_S) if places else []
        stored = self.offsets_of([place for place, wish in zip(places, wishes, strict=True) if wish is None])
        parts = []
        for place, wish in zip(places, wishes, strict=True):
            parts.append(
                self.open(place, stored[place] if wish is None else wish, wish is None, *marks[place])
            )
        self.counts |= counts
        self.consumer.post(self.consumer.start, parts, len(self.parts), sum(self.counts.values()))
        self.driver.incremental_assign(
            [TopicPartition(part.topic, part.partition, part.next) for part in parts]
        )

    def count_of(self, topic: str) -> int:
        """How many partitions the topic has now. Misconfigured: there is none of that name, also not a moment later
        (brokers learn of a new one one after the other)."""
        for _ in range(ASK_TRIES):
            about = self.ask(lambda: self.asker.list_topics(topic, ASK_S)).topics[topic]
            if about.error is None:
                return len(about.partitions)
            self.clock.block(0.3)
        raise driver.translate(about.error, f"looking for the topic {topic}")

    def open(self, place: Place, offset: int, is_stored: bool, low: int, high: int) -> Part:
        """A partition to read from ``offset``, or where that is negative from where new groups begin."""
        if offset < 0:
            offset = begin.first_offset(self.settings.begin, place[1], self.known[place[0]], low, high)
            is_stored = False
        part = Part(*place, offset, self.settings)
        self.parts[place] = part
        self.epochs[place] = part.epoch
        self.received[place] = 0
        self.asked[place] = self.wanted[place] = offset
        self.commits[place] = offset if is_stored else -1
        return part

    def revoked(self, _: object, partitions: list[TopicPartition]) -> None:
        """These go to others: the sink finishes, what is done is committed, then the group is told."""
        parts = self.drop(partitions)
        if parts and not self.stopping:
            deadline_s = self.settings.revoke_deadline_s
            self.on_loop(self.consumer.release_all(parts), 2 * deadline_s + 5)
            self.commit_now(parts)
        self.share_rate()
        self.driver.incremental_unassign(partitions)

    def lost(self, _: object, partitions: list[TopicPartition]) -> None:
        """These are others' already: nothing is committed."""
        parts = self.drop(partitions)
        if parts and not self.stopping:
            self.on_loop(self.consumer.lose_all(parts), 2 * self.settings.revoke_deadline_s + 5)
        self.share_rate()

    def share_rate(self) -> None:
        self.consumer.post(self.consumer.rate.owns, len(self.parts), sum(self.counts.values()))

    def drop(self, partitions: list[TopicPartition]) -> list[Part]:
        """Forget partitions."""
        parts = []
        for one in partitions:
            place = (one.topic, one.partition)
            part = self.parts.pop(place, None)
            if part is not None:
                parts.append(part)
            self.paused.discard(place)
        return parts

    def on_loop(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run on the loop and wait for it. Unavailable: it takes too long."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        async def run() -> None:
            try:
                result.set_result(await work)
            except BaseException as error:
                result.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise

        self.consumer.post(self.consumer.group.start, "group", run())
        try:
            return result.result(timeout_s)
        except concurrent.futures.TimeoutError:
            raise Unavailable(
                f"the sink of group {self.settings.group} does not answer within {timeout_s} s",
                code="kafka_sink_timeout",
            ) from None

    # -- events --------------------------------------------------------------------------------------------------------

    def hand_on(self, messages: Sequence[Any]) -> None:
        """To the loop, per partition, in one call."""
        found: dict[Place, list[Event]] = {}
        for message in messages:
            place = (message.topic(), message.partition())
            error = message.error()
            if error is not None:
                self.refused(place, error)
                continue
            event = Event(
                message.offset(),
                message.key(),
                message.value() or b"",
                message.headers() or (),
                message.timestamp()[1],
            )
            events = found.get(place)
            if events is None:
                events = found[place] = []
            events.append(event)
        given = []
        for place, events in found.items():
            part = self.parts.get(place)
            if part is None or not self.is_expected(place, events[0].offset):
                continue
            self.wanted[place] = events[-1].offset + 1
            self.received[place] += sum(map(event_bytes, events))
            given.append((part, self.epochs[place], events))
        if given:
            self.consumer.post(self.consumer.take, given)

    def is_expected(self, place: Place, offset: int) -> bool:
        """Whether the first event after a seek is the one that was asked for. If not, it is asked for once more: then
        it is really not there (compacted away), and was not something older on its way."""
        asked = self.asked.pop(place, offset)
        if offset == asked:
            return True
        if asked < 0:  # the second time
            return True
        self.go_to(place, asked)
        self.asked[place] = -1
        return False

    def refused(self, place: Place, error: KafkaError) -> None:
        """An error that belongs to a partition, or to the group."""
        if driver.is_fatal(error):
            raise driver.translate(error, f"member {self.settings.member} of group {self.settings.group}")
        if error.code() == KafkaError._AUTO_OFFSET_RESET and place in self.parts:
            self.out_of_range(place, error)
        elif isinstance(
            translated := driver.translate(error, f"reading {place[0]}/{place[1]}"), Misconfigured
        ):
            raise translated

    def out_of_range(self, place: Place, error: KafkaError) -> None:
        """The offset that we want is not there (K7)."""
        low, high = self.watermarks(place)
        wanted = self.wanted[place]
        target = begin.out_of_range(self.settings.out_of_range, low, high)
        if target is None:
            raise Misconfigured(
                f"offset {wanted} of {place[0]}/{place[1]} is gone; the topic holds {low} up to {high}",
                code="kafka_out_of_range",
                help="out_of_range: earliest or latest goes on from what is there; what lies between is skipped",
            )
        happening = KafkaOffsetsSkipped(
            self.settings.group, *place, wanted, target, self.settings.out_of_range
        )
        self.consumer.post(self.consumer.emit, happening)
        self.consumer.post(self.consumer.jump, self.parts[place], target)

    def seek(self, part: Part, offset: int) -> None:
        """From the loop: read from ``offset``, for the part's present epoch."""
        self.seeks.put((part, offset, part.epoch))

    def run_seeks(self) -> None:
        while True:
            try:
                part, offset, epoch = self.seeks.get_nowait()
            except Empty:
                return
            place = (part.topic, part.partition)
            if self.parts.get(place) is part:
                self.epochs[place] = epoch
                self.asked[place] = offset
                self.go_to(place, offset)

    def go_to(self, place: Place, offset: int) -> None:
        """Read on from ``offset``. Given anew rather than sought: that works in every state of the partition, and the
        driver throws away what it had read."""
        self.driver.incremental_unassign([TopicPartition(*place)])
        self.driver.incremental_assign([TopicPartition(*place, offset)])
        self.wanted[place] = offset
        self.paused.discard(place)

    def flow(self) -> None:
        """Pause what runs too far ahead of its sink, resume what does not any more."""
        for place, part in self.parts.items():
            ahead = self.received[place] - part.released_bytes
            if place not in self.paused and ahead > self.settings.ahead_bytes_max:
                self.driver.pause([TopicPartition(*place)])
                self.paused.add(place)
            elif place in self.paused and ahead <= self.settings.ahead_bytes_max // 2:
                self.driver.resume([TopicPartition(*place)])
                self.paused.discard(place)

    # -- commits -------------------------------------------------------------------------------------------------------

    def uncommitted(self, parts: Sequence[Part]) -> list[TopicPartition]:
        return [
            TopicPartition(part.topic, part.partition, done)
            for part in parts
            if (done := part.done) != self.commits.get((part.topic, part.partition))
        ]

    def commit_when_due(self) -> None:
        """Now and then, without waiting for the answer."""
        now = self.clock.boot_ns()
        if self.commit_pending or now - self.commit_at_ns < self.settings.commit_interval_s * 1e9:
            return
        offsets = self.uncommitted(list(self.parts.values()))
        if offsets:
            self.commit_at_ns, self.commit_pending = now, True
            try:
                self.driver.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                self.commit_ended(error.args[0], [])

    def commit_ended(self, error: KafkaError | None, offsets: list[Any]) -> None:
        """The answer."""
        self.commit_pending = False
        if error is None:
            error = next((one.error for one in offsets if one.error is not None), None)
        if error is not None:
            if error.code() != KafkaError._NO_OFFSET:
                happening = KafkaCommitFailed(self.settings.group, error.str())
                self.consumer.post(self.consumer.emit, happening)
            return
        self.note_commits(offsets)

    def note_commits(self, offsets: Sequence[Any]) -> None:
        done = [((one.topic, one.partition), one.offset) for one in offsets]
        self.commits |= {place: offset for place, offset in done if place in self.parts}
        self.consumer.post(self.consumer.committed, done)

    def commit_now(self, parts: Sequence[Part]) -> None:
        """And wait for it; what fails comes again at the next owner."""
        offsets = self.uncommitted(parts)
        if not offsets:
            return
        try:
            self.note_commits(self.driver.commit(offsets=offsets, asynchronous=False))
        except KafkaException as error:
            happening = KafkaCommitFailed(self.settings.group, str(error.args[0]))
            self.consumer.post(self.consumer.emit, happening)
