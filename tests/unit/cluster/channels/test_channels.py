"""Producers and consumers on this machine's network, with a table that the test changes."""

import asyncio
import contextlib
import os
from collections import defaultdict

import pytest

from headwater.cluster.channels import road
from headwater.cluster.channels.inbound import InboundChannel
from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.channels.topic import Directory, slot_of
from headwater.kit.errors import Busy, Rejected, Unavailable
from headwater.peer import batch, connection
from headwater.peer.connection import Kind
from tests.unit.peer.nodes import dialled, identity

SLOTS = 64
LIES: list[dict[str, object]] = [
    {"origins": []},
    {"origins": 7},
    {"origins": [["p", 2]], "replays": bytes(2), "first_ms": bytes(8)},
    {"origins": [["p", -1], ["p", 2]], "replays": bytes(2), "first_ms": bytes(8)},
    {"origins": [[7, 1]], "replays": bytes(2), "first_ms": bytes(8)},
    {"origins": [["p", 1]], "replays": b"", "first_ms": bytes(8)},
    {"origins": [["p", 1]], "replays": bytes(2)},
]
"""What a replayer could say of whose events these are."""


class Bench:
    """Consumers by letter, the directory that all see (unless ``late``), and what each processed."""

    def __init__(self):
        self.directory = Directory(1, [], {})
        self.late = None
        """What producers still see."""
        self.listeners = {}
        self.channels = {}
        self.processed = defaultdict(list)
        self.advised = []

    def discover(self):
        return self.directory

    def discover_late(self):
        return self.late or self.directory

    async def consumer(self, letter, *, serve=None, **more):
        whom = identity(letter)

        async def handle(events):
            for event in events:
                assert self.directory.owns(whom.node, event.slot)  # C6: at processing time
                self.processed[letter].append(bytes(event.data).decode())

        channel = InboundChannel("clicks", whom, self.discover, handle, **more)
        self.channels[letter] = channel
        serving = (lambda peer: serve(channel, peer)) if serve else channel.serve
        self.listeners[letter] = await connection.listen("127.0.0.1:0", whom, serving)

    def table(self, owners):
        """The next epoch: letters in turn over the slots; nodes are those with a listener."""
        nodes = {letter * 16: listener.address for letter, listener in self.listeners.items()}
        owner = [owners[slot % len(owners)] * 16 for slot in range(SLOTS)]
        self.directory = Directory(self.directory.epoch + 1, owner, nodes)

    def outbound(self, **more):
        return OutboundChannel(
            "clicks", identity("p"), self.discover_late, advise=self.advised.append, **more
        )

    async def stop(self, letter):
        await self.listeners.pop(letter).close()

    def all(self):
        return [text for texts in self.processed.values() for text in texts]


@pytest.fixture
async def bench():
    bench = Bench()
    yield bench
    for listener in bench.listeners.values():
        await listener.close()


async def until(true):
    while not true():
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.002)


def balanced(channel):
    return channel.counts["accepted"] == (
        channel.counts["delivered"] + channel.pending_events + channel.counts["lost"]
    )


def in_order(texts):
    """Whether the numbers of each key rise; ``key:number``."""
    last: dict[str, int] = {}
    for text in texts:
        key, number = text.split(":")
        if int(number) <= last.get(key, -1):
            return False
        last[key] = int(number)
    return True


async def send_all(out, count, keys=50, first=0):
    for n in range(first, first + count):
        await out.send(f"k{n % keys}", f"k{n % keys}:{n}".encode())


async def test_each_event_reaches_the_owner_of_its_key_once_and_in_order(bench):
    """C3, R2: accepted = delivered + pending."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    async with bench.outbound() as out:
        await send_all(out, 5000)
        assert balanced(out)
        assert await out.drain(10) == 0
        assert out.counts == {"accepted": 5000, "delivered": 5000}
    assert len(bench.all()) == 5000
    for letter in "ab":
        assert in_order(bench.processed[letter])
        owned = {f"k{n}" for n in range(50) if bench.directory.owner_of(slot_of(f"k{n}")) == letter * 16}
        assert {text.split(":")[0] for text in bench.processed[letter]} == owned


async def test_c2_keyless_events_are_shared_out_and_a_broadcast_reaches_each_once(bench):
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("a")
    async with bench.outbound() as out:
        for _ in range(1000):
            await out.send(None, b"x" * 100)
        assert await out.drain(10) == 0
        assert min(len(texts) for texts in bench.processed.values()) > 300
        bench.processed.clear()
        assert await out.broadcast(b"all") == 2
        assert await out.drain(10) == 0
    assert bench.processed == {"a": ["all"], "b": ["all"]}


async def test_c2_without_a_key_where_one_is_asked_for_is_rejected_with_an_advisory(bench):
    """R2."""
    async with bench.outbound(keyless="reject") as out:
        with pytest.raises(Rejected) as caught:
            await out.send(None, b"homeless")
    assert caught.value.code == "missing_key"
    [advisory] = bench.advised
    assert (advisory.reason, advisory.action, advisory.event) == ("missing_key", "rejected", b"homeless")
    assert out.counts == {"rejected": 1}


async def test_c8_an_event_that_no_frame_holds_is_rejected_and_never_dropped(bench):
    async with bench.outbound() as out:
        for sending in (out.send("k", bytes(batch.EVENT_BYTES_MAX + 1)), out.broadcast(bytes(5_000_000))):
            with pytest.raises(Rejected) as caught:
                await sending
            assert caught.value.code == "too_large"
    assert [advisory.reason for advisory in bench.advised] == ["too_large"] * 2


async def test_c6_nothing_is_processed_by_who_does_not_own_it_and_all_of_it_by_who_does(bench):
    """R2: who refused is told; C5: `acked` is sent again."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    async with bench.outbound() as out:
        for turn, owners in enumerate(("ba", "a", "abb", "b")):
            await send_all(out, 1000, first=1000 * turn)
            bench.late = bench.directory
            bench.table(owners)  # the consumers know it, the producer does not
            await send_all(out, 200, first=5000 + 1000 * turn)
            await until(lambda: any(advisory.reason == "not_owner" for advisory in bench.advised))
            bench.advised.clear()
            bench.late = None
        assert await out.drain(10) == 0
        assert balanced(out)
        assert out.counts["lost"] == 0
    assert len(set(bench.all())) == 4800
    assert sum(channel.counts["refused"] for channel in bench.channels.values()) >= 4
    for texts in bench.processed.values():
        assert len(set(texts)) == len(texts)  # what one node processed, it does not process again


async def test_h1_events_of_a_node_that_died_go_to_the_next_owner_in_order(bench):
    """C5: what was not acknowledged is sent again; R5: by the newest table."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    async with bench.outbound() as out:
        await send_all(out, 1000)
        await bench.stop("a")
        await send_all(out, 1000, first=1000)
        bench.table("b")
        await send_all(out, 1000, first=2000)
        assert await out.drain(10) == 0
    assert len(set(bench.all())) == 3000
    assert in_order(bench.processed["b"])


async def test_h4_a_connection_that_breaks_costs_nothing_and_repeats_nothing(bench):
    """The acknowledgement is lost with the connection: the same events come again, and are known."""
    breaks = iter([True, True, True])

    class Breaking:
        def __init__(self, peer):
            self.peer = peer

        def __getattr__(self, name):
            return getattr(self.peer, name)

        async def send(self, kind, header, *body):
            if kind == Kind.ACK and next(breaks, False):
                self.peer.abort()
                raise Unavailable("cut by the test")
            await self.peer.send(kind, header, *body)

    await bench.consumer("a", serve=lambda channel, peer: channel.serve(Breaking(peer)))
    bench.table("a")
    async with bench.outbound() as out:
        await send_all(out, 3000)
        assert await out.drain(10) == 0
    assert len(bench.processed["a"]) == 3000
    assert in_order(bench.processed["a"])
    assert bench.channels["a"].counts["duplicates"] > 0


async def test_c4_a_pause_moves_nothing_and_holds_the_producer_within_its_bounds(bench):
    """C7: credit and bounds; R4: in order."""
    await bench.consumer("a", credit_events=400, credit_bytes=100_000)
    bench.table("a")
    bench.channels["a"].pause()
    async with bench.outbound(pending_events_max=1000) as out:
        sending = asyncio.get_running_loop().create_task(send_all(out, 5000))
        await until(lambda: out.pending_events >= 1000 and out.waiting)
        assert out.pending_events == 1000
        assert not bench.all()
        [way] = out.roads.values()
        await until(lambda: way.seq >= 2)
        unacked = sum(len(events) for _, events in way.sent)
        assert unacked <= 400 + batch.EVENTS_MAX  # C7: the credit, and a batch that waits for it
        bench.channels["a"].resume()
        await sending
        assert await out.drain(10) == 0
    assert len(bench.processed["a"]) == 5000
    assert in_order(bench.processed["a"])


async def test_events_of_a_slot_without_an_owner_wait_for_one_with_an_advisory(bench):
    """R2, R5."""
    await bench.consumer("a")
    async with bench.outbound() as out:
        await send_all(out, 100)
        assert out.pending_events == 100
        assert [advisory.reason for advisory in bench.advised] == ["no_owner"]
        bench.table("a")
        assert await out.drain(10) == 0
    assert in_order(bench.processed["a"])


async def test_c5_fire_refuses_when_full_and_does_not_send_again(bench):
    await bench.consumer("a")
    async with bench.outbound(mode="fire", pending_events_max=10) as out:
        for _ in range(10):
            await out.send("k", b"k:1")
        with pytest.raises(Busy):
            await out.send("k", b"k:1")
        bench.table("a")
        await until(lambda: len(bench.processed["a"]) == 10)
        assert out.counts == {"accepted": 10, "delivered": 10, "rejected": 1}
        assert balanced(out)


@pytest.mark.parametrize(
    "said",
    [
        (Kind.DATA, {"seq": 1, "numbers": b"", "slots": b"\0\0"}, batch.pack([b"x"])),
        (Kind.DATA, {"seq": 1, "numbers": bytes(8), "slots": b"\0"}, batch.pack([b"x"])),
        (Kind.DATA, {"numbers": bytes(8), "slots": bytes(2)}, batch.pack([b"x"])),
        (Kind.DATA, {"seq": 1, "numbers": bytes(8), "slots": bytes(2)}, b"no batch"),
        (Kind.DATA, {"seq": 1, "numbers": bytes(8 * 20), "slots": bytes(2 * 20)}, batch.pack([b"x"] * 20)),
        (Kind.DATA, {}, b""),
        *(
            (Kind.DATA, {"seq": 1, "numbers": bytes(8), "slots": bytes(2)} | more, batch.pack([b"x"]))
            for more in LIES
        ),
    ],
)
async def test_a_producer_that_lies_is_refused(bench, said):
    await bench.consumer("a", credit_events=10)
    bench.table("a")
    async with dialled(bench.listeners["a"].address, identity("p")) as peer:
        await peer.send(Kind.OPEN, {"topic": "clicks", "producer": "liar"})
        assert (await peer.receive()).kind == Kind.OPEN
        await peer.send(*said)
        assert await peer.receive() is None
        assert "refused" in peer.closed
    assert not bench.all()


async def test_another_topic_is_refused(bench):
    await bench.consumer("a")
    async with dialled(bench.listeners["a"].address, identity("p")) as peer:
        await peer.send(Kind.OPEN, {"topic": "other", "producer": "p"})
        assert await peer.receive() is None
        assert "this is the topic 'clicks'" in peer.closed


async def test_a_consumer_that_takes_the_connection_and_says_nothing_is_tried_again(bench, monkeypatch):
    monkeypatch.setattr(road, "OPEN_S", 0.05)
    silent = iter([True])

    async def serve(channel, peer):
        if next(silent, False):
            await asyncio.get_running_loop().create_future()
        await channel.serve(peer)

    await bench.consumer("a", serve=serve)
    bench.table("a")
    async with bench.outbound() as out:
        await send_all(out, 100)
        assert await out.drain(10) == 0
    assert in_order(bench.processed["a"])


async def test_leaving_a_channel_leaves_no_task_and_no_connection(bench):
    await bench.consumer("a")
    bench.table("a")
    before = asyncio.all_tasks()
    async with bench.outbound() as out:
        await send_all(out, 10)
        await out.drain(10)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            await until(lambda: not bench.listeners["a"].tasks)
    assert not bench.listeners["a"].tasks
    assert asyncio.all_tasks() <= before


async def test_r4_over_five_slow_and_quick_turns_the_order_of_each_key_holds(bench):
    """C3, C4."""
    await bench.consumer("a", credit_events=400)
    bench.table("a")
    async with bench.outbound(pending_events_max=10_000) as out:
        for turn in range(5):
            bench.channels["a"].pause()
            await send_all(out, 900, first=1800 * turn)
            assert out.pending_events >= 500
            bench.channels["a"].resume()
            await send_all(out, 900, first=1800 * turn + 900)
        assert await out.drain(10) == 0
    assert len(bench.processed["a"]) == 9000
    assert in_order(bench.processed["a"])


async def test_c10_an_event_of_1_kb_costs_both_sides_together_less_than_a_tenth_of_a_millisecond_of_cpu(
    bench,
):
    """The speed itself is a benchmark's matter; here what would make it impossible."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    pad, count = bytes(1000), 10_000
    async with bench.outbound() as out:
        begun = os.times()
        for n in range(count):
            await out.send(f"k{n % 100}", pad + b"k:%d" % n)
        assert await out.drain(30) == 0
        ended = os.times()
    spent_s = ended.user + ended.system - begun.user - begun.system
    assert len(bench.all()) == count
    assert spent_s / count < 100e-6
