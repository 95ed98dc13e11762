"""Consumers of a topic and their store: who owns what, and what of it outlives the store (M1, M2, M5, H5)."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from headwater.cluster.channels import discovery, shares
from headwater.cluster.channels.discovery import DiscoverySettings, Member, Watch
from headwater.cluster.channels.shares import Record, TopicTable
from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.errors import Lost, Misconfigured, Rejected
from headwater.kit.rng import SeededRng
from headwater.kit.simulate.clock import SimClock, Time
from tests.unit.peer.nodes import identity

TTL_S = 5.0


class World:
    """Consumers by letter and a producer at one store. Everybody looks when the test says so."""

    def __init__(self, **settings):
        self.time = Time()
        self.clock = SimClock(self.time)
        self.board = Board()
        self.settings = DiscoverySettings(**settings)
        self.members = {}
        self.watch = Watch("clicks", self.whom("p"), self.store("p"), self.settings)

    def whom(self, letter):
        return dataclasses.replace(identity(letter), clock=self.clock)

    def store(self, letter):
        return MemoryStore(self.board, "east.clicks", self.clock, SeededRng(ord(letter)))

    def member(self, letter, **more):
        return Member("clicks", self.whom(letter), self.store(letter), self.settings, **more)

    async def join(self, *letters, **more):
        for letter in letters:
            self.members[letter] = self.member(letter, **more)
            await self.members[letter].join(f"10.0.0.{ord(letter)}:7512")
        await self.look()

    async def look(self, *, but=""):
        """Everybody that runs notices that it does, and looks, twice: what the leader wrote is seen then."""
        for _ in range(2):
            for letter, member in self.members.items():
                if letter not in but:
                    member.notice()
                    await member.turn()
            await self.watch.turn()

    async def passes(self, seconds, *, but=""):
        for _ in range(round(seconds)):
            self.time.advance(1.0)
            await self.look(but=but)

    def leader(self):
        assert self.watch.table is not None
        return self.watch.table.leader[0]

    def owners(self):
        """Letter → how many shares, as the producer knows it."""
        owner = self.watch.directory().owner
        return {node[:1]: owner.count(node) for node in sorted(set(owner))}


async def test_producers_find_consumers_and_consumers_agree_with_them():
    """M1, M6."""
    world = World()
    await world.join("a", "b", "c")
    assert world.owners() == {"a": 86, "b": 85, "c": 85}
    told = world.watch.directory()
    assert told.nodes == {letter * 16: f"10.0.0.{ord(letter)}:7512" for letter in "abc"}
    assert all(member.directory() == told for member in world.members.values())


async def test_h5_a_join_and_a_death_move_only_what_they_must():
    """M2, H1: who is not heard for its time to live is out."""
    world = World()
    await world.join("a", "b")
    before = world.watch.directory().owner
    await world.join("c")
    joined = world.watch.directory().owner
    moved = [(old, new) for old, new in zip(before, joined, strict=True) if old != new]
    assert len(moved) == 85
    assert {new for _, new in moved} == {"c" * 16}
    await world.passes(2 * TTL_S)  # all are sure by now that the store forgets nothing
    await world.passes(TTL_S - 1, but="b")
    assert "b" in world.owners()
    await world.passes(1, but="b")
    after = world.watch.directory().owner
    assert world.owners() == {"a": 128, "c": 128}
    assert {old for old, new in zip(joined, after, strict=True) if old != new} == {"b" * 16}


async def test_the_death_of_the_leader_is_healed_by_the_next_one():
    world = World()
    await world.join("a", "b")
    await world.passes(2 * TTL_S)
    assert world.leader() == "a"
    await world.passes(TTL_S + 1, but="a")
    assert world.owners() == {"b": 256}
    assert world.leader() == "b"


async def test_m5_without_the_store_all_go_on_and_changes_wait():
    world = World()
    await world.join("a", "b")
    before = world.watch.directory()
    world.board.down = True
    await world.passes(100)
    assert "does not answer" in world.watch.trouble
    assert all(member.directory() == before == world.watch.directory() for member in world.members.values())
    await world.join("c")
    assert world.watch.directory() == before
    world.board.down = False
    await world.passes(1)
    assert sorted(world.owners().values()) == [85, 85, 86]


async def test_m5_after_an_outage_nobody_is_out_before_it_could_say_that_it_is_there():
    world = World()
    await world.join("a", "b")
    await world.passes(TTL_S)
    before = world.watch.directory()
    world.board.down = True
    await world.passes(20)
    world.board.down = False
    await world.passes(2 * TTL_S - 1, but="b")
    assert world.watch.directory() == before
    await world.passes(2, but="b")
    assert world.owners() == {"a": 256}


async def test_a_store_that_forgot_everything_is_told_again_and_nothing_moves():
    world = World()
    await world.join("a", "b")
    await world.passes(TTL_S)
    before = world.watch.directory()
    world.board.put_back(Board())
    await world.passes(1)
    assert world.watch.directory().owner == before.owner
    assert (await world.store("x").table()) is not None
    fresh = Watch("clicks", world.whom("q"), world.store("q"))
    await fresh.turn()
    assert fresh.directory().owner == before.owner


async def test_a_store_that_went_back_to_an_older_table_gets_one_above_all_that_anybody_saw():
    world = World()
    await world.join("a")
    older = world.board.copy()
    await world.join("b")
    newest = world.watch.directory().epoch
    world.members.pop("a")  # the leader, who knew the newest table, is gone, too
    world.board.put_back(older)
    world.members["b"].table = shares.decode((await world.store("x").table()).table, TopicTable)
    await world.passes(2 * TTL_S + 2)
    assert world.owners() == {"b": 256}
    assert world.watch.directory().epoch > newest


async def test_consumers_and_a_store_that_all_begin_anew_are_above_what_producers_knew():
    world = World()
    await world.join("a", "b")
    old = world.watch.directory()
    world.members.clear()
    world.board.put_back(Board())
    world.time.advance(60)
    await world.join("c")
    assert world.watch.directory().epoch > old.epoch
    assert world.owners() == {"c": 256}


async def test_h2_who_stood_still_owns_nothing_until_the_store_has_answered():
    """C6: nothing is processed by a node that does not own it."""
    world = World()
    await world.join("a", "b")
    await world.passes(TTL_S)
    sleeper = world.members["b"]
    world.time.advance(TTL_S + 0.1)
    assert sleeper.directory().owner == ()
    sleeper.notice()
    assert sleeper.directory().owner == ()
    world.board.down = True
    await sleeper.turn()
    assert sleeper.directory().owner == ()
    world.board.down = False
    world.time.advance(0.1)
    await sleeper.turn()
    assert "b" * 16 in sleeper.directory().owner


async def test_what_a_look_read_before_the_stand_still_says_nothing():
    world = World()
    await world.join("a")
    sleeper = world.members["a"]

    class Late(MemoryStore):
        async def nodes(self):
            found = await super().nodes()
            world.time.advance(60)  # stopped here, with the answer in hand
            sleeper.notice()
            return found

    sleeper.store = Late(world.board, "east.clicks", world.clock, SeededRng(1))
    await sleeper.turn()
    assert sleeper.directory().owner == ()


@pytest.mark.parametrize(("strict", "owned"), [(True, 0), (False, 256)])
async def test_strict_means_that_who_cannot_reach_the_store_processes_nothing(strict, owned):
    world = World(strict=strict)
    await world.join("a")
    world.board.down = True
    await world.passes(TTL_S + 1)
    assert world.members["a"].directory().owner.count("a" * 16) == owned


async def test_who_leaves_gives_its_slots_to_the_others_first():
    """H8."""
    world = World()
    await world.join("a", "b")
    leaving = world.members["a"]  # the leader
    assert await leaving.leave(1.0)
    world.members.pop("a")
    await world.watch.turn()
    assert world.owners() == {"b": 256}
    assert set(await world.store("x").nodes()) == {"b" * 16}
    assert await world.members.pop("b").leave(1.0)
    await world.watch.turn()
    assert world.owners() == {"": 256}


async def test_of_two_processes_with_one_name_the_newer_stays_and_the_older_is_told():
    world = World()
    await world.join("a")
    older = world.members.pop("a")
    newer = world.member("a")
    await newer.join("10.0.0.9:7512")
    with pytest.raises(Lost, match=r"has the name a{16}, at 10\.0\.0\.9:7512"):
        await older.turn()
    assert older.directory().owner == ()
    await newer.turn()
    assert newer.directory().owner.count("a" * 16) == 256


async def test_weights_are_kept_also_for_who_is_only_forgotten():
    world = World()
    await world.join("a")
    await world.join("b", weight=3)
    assert world.owners() == {"a": 64, "b": 192}
    forgetful = world.board.copy()
    del forgetful.expiring[f"east.clicks:nodes:{'b' * 16}"]
    world.board.put_back(forgetful)
    await world.members["a"].turn()
    await world.watch.turn()
    assert world.owners() == {"a": 64, "b": 192}


@pytest.mark.parametrize("address", ["0.0.0.0:7512", "[_site_]:7512", "x" * 300, "10.0.0.1:0"])
async def test_an_address_that_nobody_can_dial_is_refused_at_the_start(address):
    with pytest.raises(Misconfigured, match="cannot join the topic clicks: address") as caught:
        await World().member("a").join(address)
    assert "tcp://[_site_:ipv4]:7512" in caught.value.help


async def test_what_is_no_record_and_no_table_is_counted_and_passed_over():
    world = World()
    await world.join("a")
    before = world.watch.directory()
    stranger = world.store("x")
    await stranger.put_node("x", b"\xff{", 5)
    await stranger.put_node("y", shares.encode(Record(node="z", incarnation=1, address="z:1")), 5)
    await stranger.put_table(before.epoch + 1, b'{"epoch":1}')
    await world.look()
    assert world.watch.directory() == before
    [told] = [value for name, _, value in world.watch.identity.counters if "store_errors" in name]
    assert told == 2


def test_a_leader_goes_above_every_table_that_a_consumer_has_seen():
    record = Record(node="a", incarnation=1, address="h:1")
    table = shares.next_table(None, {"a": record}, "a", 5)
    assert table is not None
    assert table.epoch == 5
    assert shares.next_table(table, {"a": record}, "a", 0) is None
    later = msgspec.structs.replace(record, epoch=9)
    above = shares.next_table(table, {"a": later}, "a", 0)
    assert above is not None
    assert (above.epoch, above.owner) == (10, table.owner)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epoch": 0}, "epoch: expected 1 to"),
        ({"owner": []}, "count of owners"),
        ({"owner": [0] * 4097}, "count of owners"),
        ({"owner": [1]}, "owner: expected -1 to 0, got 1"),
        ({"nodes": {"a b": "h:1"}, "owner": [0]}, "nodes: expected 1 to 64"),
        ({"nodes": {"a": "0.0.0.0:1"}}, "address of a: "),
        ({"more": 1}, "unknown field `more`"),
    ],
)
def test_a_wrong_table_is_refused_with_the_name_of_the_field(changed, says):
    told = {"epoch": 7, "leader": "a", "nodes": {"a": "h:1"}, "owner": [0, -1]} | changed
    data = msgspec.json.encode(told)
    with pytest.raises(Rejected, match=says):
        shares.decode(data, TopicTable)


def test_times_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="record_ttl_s: expected at least three times look_s"):
        DiscoverySettings(record_ttl_s=1, look_s=0.5)


async def test_the_password_of_the_store_is_in_nothing_that_is_said():
    settings = StoreSettings(url="redis://:verysecret@127.0.0.1:1", call_timeout_s=0.1)
    store = discovery.store_of(settings, "east", "clicks")
    watch = Watch("clicks", identity("p"), store)
    await watch.turn()
    assert watch.trouble
    assert "verysecret" not in f"{watch.trouble} {settings!r} {vars(watch)!r}"
    await store.close()
