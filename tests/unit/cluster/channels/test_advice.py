"""A channel with an advice listener: what is kept there, in which order, and how live flow resumes (R2 to R5)."""

from __future__ import annotations

import asyncio

import pytest

from headwater.cluster.channels import advice, outbound
from headwater.cluster.channels.advice import AdviceSettings, MemoryAdvice, Undelivered
from headwater.cluster.channels.advisory import Slowness
from headwater.cluster.channels.replay import Replay, ReplaySettings
from headwater.cluster.channels.topic import slot_of
from headwater.kit.errors import Misconfigured, Rejected, Unavailable
from tests.unit.cluster.channels.test_channels import Bench, in_order, send_all, until
from tests.unit.peer.nodes import identity

QUICK = AdviceSettings(look_s=0.01)


class Spooled(Bench):
    """A bench with a listener in memory, and a replayer that goes on when it is told to."""

    def __init__(self):
        super().__init__()
        self.listener = MemoryAdvice(lanes=2)
        self.replaying = {}
        self.replays = []

    def outbound(self, **more):
        return super().outbound(advice=self.listener, **{"advice_settings": QUICK} | more)

    async def replay_lane(self, replay, lane):
        """As lane/kafka/replay does it: batch by batch, committed when delivered."""
        while True:
            done, kept = self.listener.done[lane], self.listener.kept[lane]
            events = kept[done : done + 100]
            if events:
                await replay.deliver(events, 1, set())
                self.listener.done[lane] = done + len(events)
            else:
                await a_moment()

    async def run_replayer(self):
        settings = ReplaySettings(healthy_s=0, share_max=1)
        channel = outbound.OutboundChannel("clicks", identity("r"), self.discover, eager=True)
        async with channel:
            replay = Replay(channel, settings)
            await asyncio.gather(*(self.replay_lane(replay, lane) for lane in range(2)))

    async def consumer(self, letter, **more):
        await super().consumer(letter, **more)
        channel = self.channels[letter]
        plain = channel.handle

        async def handle(events):
            self.replays += [event for event in events if event.replays]
            await plain(events)

        channel.handle = handle


@pytest.fixture
async def bench(monkeypatch):
    monkeypatch.setattr(outbound, "LOOK_S", 0.01)
    monkeypatch.setattr(outbound, "SLOW_AGE_S", 0.1)
    monkeypatch.setattr("headwater.cluster.channels.advisory.SLOW_AGE_S", 0.1)
    monkeypatch.setattr("headwater.cluster.channels.advisory.NORMAL_S", 0.1)
    bench = Spooled()
    yield bench
    for listener in bench.listeners.values():
        await listener.close()


async def a_moment():
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.005)


def balanced(channel):
    """A1."""
    counts = channel.counts
    return counts["accepted"] == (
        counts["delivered"] + counts["spooled"] + counts["lost"] + channel.pending_events
    )


async def test_r3_what_a_slow_consumer_does_not_take_is_kept_and_leaves_memory_only_then(bench):
    """R2: the advisory says what was done; A1 holds."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    bench.channels["a"].pause()
    async with bench.outbound() as out:
        bench.listener.error = Unavailable("away")
        await send_all(out, 1000)
        await until(lambda: out.advised["spool_failed"])
        assert out.counts["spooled"] == 0
        assert balanced(out)
        bench.listener.error = None
        assert await out.drain(10) == 0
        assert balanced(out)
        assert out.counts["lost"] == 0
        assert out.counts["spooled"] + out.counts["delivered"] == 1000
    told = [advisory for advisory in bench.advised if advisory.action == "spooling"]
    assert [advisory.reason for advisory in told] == ["slow_consumer"]
    assert told[0].peer == "a" * 16
    assert told[0].events
    assert 0 <= told[0].slots[0] <= told[0].slots[1] < 4096
    kept = [event for lane in bench.listener.kept for event in lane]
    assert {bench.directory.owner_of(event.slot) for event in kept} == {"a" * 16}
    assert in_order(event.data.decode() for event in kept)
    assert len(set(bench.processed["b"])) == 1000 - len(kept)


async def test_r4_newer_events_of_a_slot_are_kept_behind_and_live_flow_resumes_in_order(bench):
    """C4, R5: five slow and quick turns, events all the time; each key in order and each event once."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    running = asyncio.get_running_loop().create_task(bench.run_replayer())
    async with bench.outbound() as out:
        n = 0
        for _ in range(5):
            spooled = out.counts["spooled"]
            bench.channels["a"].pause()
            while out.counts["spooled"] == spooled:
                await send_all(out, 100, first=n)
                n += 100
                await a_moment()
            bench.channels["a"].resume()
            while out.spooling.bars or any(road.slowness.slow for road in out.roads.values()):
                await send_all(out, 10, first=n)  # it never falls silent
                n += 10
                await a_moment()
        delivered = out.counts["delivered"]
        await send_all(out, 100, first=n)
        assert await out.drain(10) == 0
        assert out.counts["delivered"] >= delivered + 100
    running.cancel()
    assert sorted(int(text.split(":")[1]) for text in bench.all()) == list(range(n + 100))
    assert in_order(bench.processed["a"])
    assert in_order(bench.processed["b"])
    assert bench.replays
    assert {event.producer for event in bench.replays} == {out.producer}
    assert all(event.first_ms > 1_600_000_000_000 for event in bench.replays)


async def test_r4_a_slot_stays_barred_while_an_event_of_it_is_still_to_be_kept(bench, monkeypatch):
    async with bench.outbound() as out:
        await send_all(out, 10, keys=1)
        assert await out.drain(10) == 0
        keep = bench.listener.keep
        looks = []

        async def away(lane, events):
            raise Unavailable("away")

        monkeypatch.setattr(bench.listener, "keep", away)
        await send_all(out, 10, keys=1, first=10)
        bench.listener.done = {lane: len(kept) for lane, kept in enumerate(bench.listener.kept)}
        monkeypatch.setattr(out.spooling, "advance", lambda *_: looks.append(1))
        await until(lambda: len(looks) > 8)
        assert list(out.spooling.bars) == [slot_of("k0")]
        monkeypatch.setattr(bench.listener, "keep", keep)
        assert await out.drain(10) == 0
        assert sum(map(len, bench.listener.kept)) == 20


async def test_r4_live_flow_resumes_although_events_of_the_key_never_stop(bench):
    """The replay is always a little behind, so what was kept last is never replayed yet."""
    await bench.consumer("a")
    bench.table("a")
    bench.channels["a"].pause()

    async def lagging():
        seen = [0, 0]
        while True:
            bench.listener.done = dict(enumerate(seen))
            seen = [len(kept) for kept in bench.listener.kept]
            for _ in range(10):
                await a_moment()

    async with bench.outbound() as out:
        n = 0
        while not out.counts["spooled"]:
            await out.send("k", b"k:%d" % n)
            n += 1
            await a_moment()
        bench.channels["a"].resume()
        running = asyncio.get_running_loop().create_task(lagging())
        while out.spooling.bars:
            await out.send("k", b"k:%d" % n)
            n += 1
            await a_moment()
        running.cancel()
        assert await out.drain(10) == 0
        assert out.counts["delivered"] > 0
        assert balanced(out)
    assert in_order(bench.processed["a"])


async def test_r5_what_was_kept_goes_to_the_owner_of_today(bench):
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("a")
    bench.channels["a"].pause()
    async with bench.outbound() as out:
        await send_all(out, 200)
        assert await out.drain(10) == 0
        assert out.counts["spooled"] == 200
        bench.table("b")
        running = asyncio.get_running_loop().create_task(bench.run_replayer())
        await until(lambda: len(bench.processed["b"]) == 200)
        await until(lambda: not out.spooling.bars)
        running.cancel()
    assert in_order(bench.processed["b"])


async def test_what_was_processed_and_not_acknowledged_is_known_when_it_is_replayed(bench):
    """R5, C5: the slow consumer had them in hand."""
    await bench.consumer("a")
    bench.table("a")
    channel, slow = bench.channels["a"], asyncio.Event()
    plain = channel.handle

    async def handle(events):
        await plain(events)
        await slow.wait()

    channel.handle = handle
    running = asyncio.get_running_loop().create_task(bench.run_replayer())
    async with bench.outbound() as out:
        await send_all(out, 50)
        await until(lambda: out.counts["spooled"] == 50)
        slow.set()
        await until(lambda: not out.spooling.bars)
    running.cancel()
    assert len(bench.processed["a"]) == 50
    assert channel.counts["duplicates"] >= 50


async def test_c5_spooled_is_durable_when_send_returns_and_the_replay_delivers_it(bench):
    """R4: in order, also when the owner changes meanwhile."""
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    async with bench.outbound(mode="spooled") as out:
        await send_all(out, 100)
        assert sum(map(len, bench.listener.kept)) == out.counts["spooled"] == 100
        await out.send(None, b"keyless:0")
        assert not bench.all()
        bench.table("b")
        await send_all(out, 100, first=100)
        running = asyncio.get_running_loop().create_task(bench.run_replayer())
        await until(lambda: len(bench.all()) == 201)
        await until(lambda: not out.spooling.bars)
        await send_all(out, 100, first=200)
        await until(lambda: len(bench.all()) == 301)
        running.cancel()
        bench.listener.error = Unavailable("away")
        sending = asyncio.get_running_loop().create_task(out.send("k", b"k:0"))
        await until(lambda: out.advised["spool_failed"])
        assert not sending.done()
        sending.cancel()
        assert balanced(out)
        assert out.counts["delivered"] == 0
    assert in_order(bench.processed["b"])


def test_c5_spooled_without_a_listener_is_refused_at_the_start(bench):
    with pytest.raises(Misconfigured, match="has no advice listener"):
        outbound.OutboundChannel("clicks", identity("p"), bench.discover, mode="spooled")


async def test_events_that_have_no_owner_for_long_are_kept(bench):
    """R2."""
    async with bench.outbound() as out:
        await send_all(out, 10)
        assert await out.drain(10) == 0
        assert out.counts["spooled"] == 10
    said = [(advisory.reason, advisory.action) for advisory in bench.advised]
    assert said == [("no_owner", "waiting"), ("no_owner", "spooling")]


async def test_r3_a_full_backlog_pushes_back_and_drops_nothing(bench):
    async with bench.outbound(
        pending_events_max=50, advice_settings=AdviceSettings(look_s=0.01, backlog_events_max=100)
    ) as out:
        sending = asyncio.get_running_loop().create_task(send_all(out, 1000))
        await until(lambda: out.advised["spool_full"])
        await until(lambda: out.waiting)
        assert out.counts["spooled"] <= 100
        assert out.pending_events <= 50
        assert not sending.done()
        while not sending.done():
            bench.listener.done = {lane: len(kept) for lane, kept in enumerate(bench.listener.kept)}
            await a_moment()
        assert out.counts["lost"] == out.counts["rejected"] == 0
        assert balanced(out)


async def test_r4_slots_that_a_former_process_left_events_of_are_barred_from_the_start(bench):
    await bench.consumer("a")
    bench.table("a")
    old = Undelivered("clicks", "former-1", 7, slot_of("k1"), 1_700_000_000_000, b"k1:0")
    bench.listener.kept[1].append(old)
    async with bench.outbound() as out:
        await out.send("k1", b"k1:1")
        await out.send("k2", b"k2:1")
        await until(lambda: out.counts["spooled"] == 1 and out.counts["delivered"] == 1)
        assert bench.processed["a"] == ["k2:1"]
        running = asyncio.get_running_loop().create_task(bench.run_replayer())
        await until(lambda: len(bench.processed["a"]) == 3)
        running.cancel()
    assert bench.processed["a"][1:] == ["k1:0", "k1:1"]


async def test_a_listener_that_does_not_know_what_is_left_lets_no_channel_begin(bench):
    bench.listener.error = Unavailable("away")
    with pytest.raises(Unavailable):
        async with bench.outbound():
            pass


async def test_c8_an_event_that_the_listener_could_not_keep_is_rejected_at_once(bench):
    bench.listener.event_bytes_max = 100
    async with bench.outbound() as out:
        with pytest.raises(Rejected) as caught:
            await out.send("k", bytes(101))
    assert caught.value.code == "too_large"


async def test_keyless_events_go_round_a_slow_consumer(bench, monkeypatch):
    """C2."""
    monkeypatch.setattr("headwater.cluster.channels.advisory.SLOW_AGE_S", 0.5)
    await bench.consumer("a")
    await bench.consumer("b")
    bench.table("ab")
    bench.channels["a"].pause()
    async with bench.outbound() as out:
        for _ in range(200):
            await out.send(None, b"x")
        assert await out.drain(10) == 0
        assert out.counts["delivered"] == 200
    assert len(bench.processed["b"]) == 200


async def test_a_handler_that_raises_is_told_of_and_its_events_are_kept(bench):
    """R2, R6: the producer goes on."""
    await bench.consumer("a")
    bench.table("a")
    channel = bench.channels["a"]
    plain = channel.handle

    async def handle(events):
        if any(bytes(event.data) == b"bad:1" for event in events):
            raise ValueError("this one is bad")
        await plain(events)

    channel.handle = handle
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with bench.outbound() as out:
        await out.send("bad", b"bad:1")
        await send_all(out, 10)
        assert await out.drain(10) == 0
        assert out.counts["spooled"] >= 1
        await send_all(out, 10, first=10)
    [told] = [advisory for advisory in bench.advised if advisory.reason == "failed"]
    assert told.error == "ValueError: this one is bad"
    assert channel.counts["failed"]


def test_records_of_a_spool_come_back_and_strangers_are_refused():
    key = advice.key_of(identity("a"))
    event = Undelivered("clicks", "p-1", 2**64 - 1, 0xFFFF, 1_700_000_000_000, b"\0data")
    told = advice.encode(event, key)
    assert advice.decode(told, key) == event
    assert len(told) - len(event.data) < advice.HEAD_BYTES_MAX
    for spoilt in (told[:-1], told[:5], b"", b"\x02" + told[1:], told[:17] + b"\xc0" * (len(told) - 17)):
        with pytest.raises(Rejected):
            advice.decode(spoilt, key)
    with pytest.raises(Rejected):
        advice.decode(told, advice.key_of(identity("a", secret=b"another secret, also long")))
    assert b"correct horse" not in told


def test_r1_a_consumer_stays_slow_while_nothing_shows_that_it_is_not():
    slowness = Slowness()
    assert slowness.look(0, 3, 0) == "waiting"
    assert slowness.look(10, 0, 1.0) is None
    assert slowness.look(20, 0, 0.0) is None
    assert slowness.look(22, 0, 0.0) == "resumed"
