"""Copies hold what their home sent, no more and no less, through every restart; readers get it as from the home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headwater.cluster.table import NO_TABLE, NodeRecord, View
from headwater.event.position import EMPTY, ZERO, Position, Vector, WriterId, writer_id
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Busy, Rejected
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.threads import inline
from headwater.lane import copies, copies_told, wire
from headwater.lane.copies import Copies, Link, choose
from headwater.lane.copies_held import Held
from headwater.lane.copies_read import Directory
from headwater.lane.home import RawLog
from headwater.lane.wire import Outgoing
from headwater.log.block import Secret
from headwater.log.read import LogReader
from headwater.peer.frames import Kind
from tests.unit.lane.raw import gathered
from tests.unit.lane.world import HOME, PARTITIONS, HomeNode, OwnerNode, carried, follow

NODE, OTHER = f"{HOME:016x}", "0123456789ab0000"
FIRST = WriterId(writer_id(HOME, 0))
ONE = [("single", 1, 0)]
SEGMENT = 4 * 4096


class Holder:
    """A node that keeps copies of the home, and the stream that the home sends to it."""

    def __init__(self, path: Path, home: HomeNode, bytes_max: int = 1 << 30) -> None:
        self.path, self.home, self.bytes_max = path, home, bytes_max
        self.disk, self.clock = SystemDisk(), SimClock(Time())
        self.disk.mkdir(str(path))
        self.restart()

    def restart(self) -> None:
        """The process begins again: what the former one had not synced is not relied on."""
        self.troubles: list[str] = []
        self.held = Held(
            self.disk, f"{self.path}/copies", Secret(77), self.clock, lambda *told: self.troubles.append(str(told[2])),
            bytes_max=self.bytes_max, thread=lambda name: inline, segment_bytes=SEGMENT,
        )  # fmt: skip

    def begin(self, at: Vector = EMPTY) -> wire.CopyAck:
        """The home says from where on it wants copies, and sends on from where they end."""
        ack = self.give(wire.outgoing(wire.Copy(stands=at.encode())))
        assert ack is not None
        origin = Vector.decode(ack.stands).encode()
        asked = wire.Open(stream="copies", partitions=list(range(PARTITIONS)), origin=origin, credit=1 << 40)
        self.stream = self.home.stream(asked)
        return ack

    def give(self, frame: Outgoing) -> wire.CopyAck | None:
        return self.held.take(self.held.home(NODE), carried(frame))

    def turn(self) -> Vector:
        """What the home has for it now; where the copies stand then, as it is told."""
        self.home.pass_time(2_000_000_000)
        acks = [self.give(frame) for frame in self.stream.turn()]
        (ack,) = [one for one in acks if one is not None]
        return Vector.decode(ack.stands)

    def log(self, worker: int = 0):
        return self.held.home(NODE).log(WriterId(writer_id(HOME, worker)))

    def stretches(self) -> list[tuple[Position, Position]]:
        return [(one.begins, one.end) for one in self.log().stretches]

    def directory(self, away: bool = True, me: str = OTHER) -> Directory:
        async def nobody(node: str):
            raise AssertionError(node)

        return Directory(me, self.held, PARTITIONS, lambda node: away, nobody, self.clock)


@pytest.fixture
def home(tmp_path: Path) -> HomeNode:
    return HomeNode(tmp_path / "home")


@pytest.fixture
def holder(tmp_path: Path, home: HomeNode) -> Holder:
    return Holder(tmp_path / "holder", home)


def write(home: HomeNode, count: int, worker: int = 0) -> None:
    for _ in range(count):
        home.write(worker, ONE)


def test_copies_are_what_the_home_wrote_and_are_read_like_its_log(holder: Holder, home: HomeNode) -> None:
    write(home, 5)
    write(home, 3, worker=1)
    home.restart_worker(0)
    write(home, 2)
    holder.begin()
    stands = holder.turn()
    assert stands.entries == home.ends().entries
    ours, _ = follow(holder.disk, holder.held.shelf.root, Secret(77), home.now(), EMPTY)
    theirs, _ = follow(home.disk, home.raw, home.secret, home.now(), EMPTY)
    assert gathered(ours) == gathered(theirs) and len(gathered(ours)) == 10


def test_nothing_is_acknowledged_that_a_restart_of_the_holder_does_not_find(
    holder: Holder, home: HomeNode
) -> None:
    holder.begin()
    for _ in range(11):  # over several segments
        write(home, 1)
        stands = holder.turn()
        holder.restart()
        ack = holder.begin()
        assert Vector.decode(ack.stands) == Vector(stands.entries)
    assert holder.stretches() == [(ZERO, Position(1, 11))]


def test_what_came_without_its_sync_is_sent_again(holder: Holder, home: HomeNode) -> None:
    holder.begin()
    write(home, 3)
    stands = holder.turn()
    write(home, 2)
    home.pass_time(2_000_000_000)
    frames = holder.stream.turn()
    log = holder.log()
    data = wire.data(carried(frames[-1]))
    log.take(data.blocks[0], bytes(carried(frames[-1]).body)[: data.blocks[0].bytes])
    assert log.cell().get() == 3 and log.stretches[-1].end == stands[FIRST], "not readable, not told"


def test_a_gap_is_refused_and_nothing_of_it_is_kept(holder: Holder, home: HomeNode) -> None:
    holder.begin()
    write(home, 2)
    holder.turn()
    write(home, 2)
    home.pass_time(2_000_000_000)
    (frame,) = holder.stream.turn()
    data = wire.data(carried(frame))
    second = bytes(frame.body)[data.blocks[0].bytes :]
    with pytest.raises(Rejected, match="expected"):
        holder.log().take(data.blocks[1], second)
    assert holder.log().at == Position(1, 2)


def test_writers_of_another_home_are_refused(holder: Holder) -> None:
    with pytest.raises(Rejected, match="from node"):
        holder.begin(Vector({WriterId(0x1111_0000_0000_0000): Position(1, 1)}))


def test_a_spoilt_frame_is_refused(holder: Holder, home: HomeNode) -> None:
    holder.begin()
    write(home, 1)
    home.pass_time(2_000_000_000)
    (frame,) = holder.stream.turn()
    with pytest.raises(Rejected, match="spoilt"):
        holder.give(frame._replace(body=b"x" + bytes(frame.body)[1:]))


def test_a_holder_that_was_away_begins_a_new_stretch_and_claims_nothing_between(
    holder: Holder, home: HomeNode
) -> None:
    holder.begin()
    write(home, 3)
    holder.turn()
    write(home, 4)  # others held these
    ack = holder.begin(Vector({FIRST: Position(1, 7)}))
    assert Vector.decode(ack.stands)[FIRST] == Vector.decode(ack.begins)[FIRST] == Position(1, 7)
    write(home, 2)
    holder.turn()
    for _ in range(2):
        assert holder.stretches() == [(ZERO, Position(1, 3)), (Position(1, 7), Position(1, 9))]
        holder.restart()
    directory = holder.directory()
    assert directory.reachable({FIRST: (Position(1, 7), Position(1, 9))})
    assert directory.reachable({FIRST: (ZERO, Position(1, 3))})
    assert not directory.reachable({FIRST: (Position(1, 2), Position(1, 9))})
    assert not directory.reachable({FIRST: (Position(1, 7), Position(1, 10))})


def test_a_home_that_knows_less_than_the_holder_goes_on_where_the_copies_end(
    holder: Holder, home: HomeNode
) -> None:
    write(home, 4)
    holder.begin(Vector({FIRST: Position(1, 2)}))
    holder.turn()
    ack = holder.begin()  # the lane of the home began again
    assert Vector.decode(ack.stands)[FIRST] == Position(1, 4)
    assert Vector.decode(ack.begins)[FIRST] == Position(1, 2)


def test_only_what_is_below_safe_goes_and_never_the_rest(holder: Holder, home: HomeNode) -> None:
    holder.begin()
    write(home, 12)
    holder.turn()
    held = len(holder.log().segments)
    assert held >= 2
    holder.held.retire(EMPTY, {NODE})
    assert len(holder.log().segments) == held
    holder.held.retire(Vector({FIRST: Position(1, 6)}), {NODE})
    (stretch,) = holder.stretches()
    assert ZERO < stretch[0] <= Position(1, 6) and stretch[1] == Position(1, 12)
    holder.restart()
    assert holder.stretches() == [stretch]
    reader = LogReader(holder.disk, holder.log().folder, FIRST, stretch[0], secret=Secret(77))
    reader.fill(1 << 20)
    assert [b.payload is not None for b in reader.ahead] == [True] * (12 - stretch[0].seq)
    reader.close()


def test_all_of_a_home_goes_when_nobody_knows_it_and_nobody_asks(holder: Holder, home: HomeNode) -> None:
    holder.begin()
    write(home, 2)
    holder.turn()
    folder = holder.log().folder
    holder.held.retire(Vector({FIRST: Position(1, 1)}), set())
    assert holder.disk.exists(folder)
    holder.held.retire(Vector({FIRST: Position(1, 2)}), {NODE})
    assert holder.disk.exists(folder)
    holder.held.retire(Vector({FIRST: Position(1, 2)}), set())
    assert not holder.disk.exists(folder)


def test_copies_are_bounded(tmp_path: Path, home: HomeNode) -> None:
    holder = Holder(tmp_path / "holder", home, bytes_max=3 * SEGMENT)
    holder.begin()
    with pytest.raises(Busy, match="no room"):
        for _ in range(40):
            write(home, 1)
            holder.turn()
    assert holder.held.bytes <= 3 * SEGMENT
    reached = holder.log().at.seq
    assert reached >= 3
    holder.held.retire(Vector({FIRST: Position(1, reached)}), {NODE})
    holder.begin()
    assert holder.turn()[FIRST].seq > reached, "there is room again"


# -- reading


def mirrored(holder: Holder, owner: OwnerNode, away: bool = True) -> None:
    """Read the copies into an owner's mirror, until there is nothing more."""
    asked = owner.mirror.opening(OTHER)
    assert asked.home == NODE
    stream = holder.directory(away).stream(asked)
    owner.take(stream.turn())
    stream.close()


def test_an_owner_reads_copies_as_it_would_read_the_home_and_goes_on_there(
    tmp_path: Path, holder: Holder, home: HomeNode
) -> None:
    owner = OwnerNode(tmp_path / "owner", range(PARTITIONS))
    write(home, 3)
    stream = home.stream(owner.mirror.opening())
    owner.take(stream.turn())
    holder.begin()
    write(home, 3)
    home.restart_worker(0)
    write(home, 2)
    holder.turn()
    mirrored(holder, owner)
    assert owner.mirror.stands(FIRST) == home.ends()[FIRST]
    write(home, 2)  # the home is back
    home.pass_time(1)
    again = home.stream(owner.mirror.opening())
    owner.take(again.turn())
    blocks, _ = follow(owner.disk, owner.raw, owner.secret, home.now(), EMPTY, owner.folder)
    theirs, _ = follow(home.disk, home.raw, home.secret, home.now(), EMPTY)
    assert gathered(blocks) == gathered(theirs) and len(theirs) == 10


def test_a_holder_gives_nothing_of_what_it_does_not_have(
    tmp_path: Path, holder: Holder, home: HomeNode
) -> None:
    write(home, 5)
    holder.begin(Vector({FIRST: Position(1, 3)}))
    holder.turn()
    owner = OwnerNode(tmp_path / "owner", range(PARTITIONS))
    mirrored(holder, owner)
    assert owner.mirror.stands(FIRST) == ZERO


def test_copies_are_given_only_while_their_home_is_away(
    tmp_path: Path, holder: Holder, home: HomeNode
) -> None:
    write(home, 1)
    holder.begin()
    holder.turn()
    owner = OwnerNode(tmp_path / "owner", range(PARTITIONS))
    with pytest.raises(Rejected, match="no copies"):
        mirrored(holder, owner, away=False)
    assert holder.directory(away=False).told() == {}


def test_a_block_that_the_disk_of_the_holder_spoilt_is_not_called_lost(
    tmp_path: Path, holder: Holder, home: HomeNode
) -> None:
    write(home, 3)
    holder.begin()
    holder.turn()
    (path,) = Path(holder.log().folder).glob("*-0000000000000000.seg")
    with path.open("r+b") as file:
        file.seek(4096 + 100)
        file.write(b"spoilt")
    owner = OwnerNode(tmp_path / "owner", range(PARTITIONS))
    mirrored(holder, owner)
    assert owner.mirror.stands(FIRST) == Position(1, 1)
    assert owner.mirror.logs[FIRST].missing == 0


def test_the_holder_that_reaches_furthest_is_read(holder: Holder) -> None:
    directory = holder.directory()
    name = f"{FIRST:016x}"
    directory.learn({"a" * 16: {name: [[0, 0, 1, 5]]}, "b" * 16: {name: [[1, 2, 1, 9]]}, "c" * 16: {}})
    assert directory.holder(NODE, lambda writer: Position(1, 3)) == "b" * 16
    assert directory.holder(NODE, lambda writer: Position(1, 1)) == "a" * 16, (
        "b does not have what comes next"
    )
    assert directory.holder(NODE, lambda writer: Position(1, 9)) is None
    assert directory.homes() == {NODE}


# -- the home


def record(node: str, zone: str = "") -> NodeRecord:
    return NodeRecord(
        node=node, name=node, incarnation=1, member_address="x:1", lane_address="x:2", zone=zone
    )


NODES = {f"{n:012x}0000": record(f"{n:012x}0000", f"zone-{n % 2}") for n in range(1, 7)}
ME = record(NODE, "zone-1")


def test_holders_are_in_other_zones_first_and_stay() -> None:
    first = choose(ME, NODES, [], [], 3)
    assert {NODES[node].zone for node in first} == {"zone-0"}
    assert choose(ME, NODES, [], [], 2) == first[:2]
    fewer = {node: one for node, one in NODES.items() if node != first[0]}
    assert choose(ME, fewer, first, [], 3)[:2] == first[1:], "one that is lost moves no other"
    assert choose(ME, NODES, first[1:], [], 2) == first[1:], "nor does one that comes back"


def test_a_node_that_was_just_lost_is_chosen_only_where_there_is_no_other() -> None:
    first = choose(ME, NODES, [], [], 1)
    assert choose(ME, NODES, [], first, 1) != first
    assert choose(ME, {first[0]: NODES[first[0]]}, [], first, 1) == first


@pytest.fixture
async def sender(tmp_path: Path, home: HomeNode) -> AsyncIterator[Copies]:
    """The home's side, with two copies to make; holders are set by hand."""
    run = tmp_path / "run"
    run.mkdir()

    async def nobody(node: str):
        raise AssertionError(node)

    def started(name, work):
        work.close()
        return asyncio.get_running_loop().create_future()

    raw = RawLog(home.disk, home.raw, home.secret, PARTITIONS)
    made = Copies(raw, str(run), home.now, home.clock, nobody, started, lambda *told: None, count=2)
    yield made
    made.close()


def stand(sender: Copies, node: str, seq: int) -> None:
    link = sender.links.setdefault(node, Link(node))
    link.stands = {FIRST: Position(1, seq)}
    sender.settle()


async def test_copied_is_what_all_holders_have_and_never_goes_back(sender: Copies, home: HomeNode) -> None:
    told = home.disk.cell(copies_told.cell(sender.run, 1), write=True)
    stand(sender, "a", 10)
    assert told.get() == 0, "one of two"
    stand(sender, "b", 7)
    assert told.get() == 7
    del sender.links["b"]
    stand(sender, "a", 12)
    assert told.get() == 7
    stand(sender, "c", 7)  # begins where there were not enough
    stand(sender, "c", 9)
    assert told.get() == 9
    stand(sender, "a", 3)
    assert told.get() == 9
    told.close()


async def test_a_new_holder_begins_at_the_first_block_without_enough_copies(
    sender: Copies, home: HomeNode
) -> None:
    write(home, 3)
    assert sender.floor() == EMPTY
    stand(sender, "a", 3)
    stand(sender, "b", 2)
    assert sender.floor() == Vector({FIRST: Position(1, 2)})


def view(*others: str) -> View:
    alive = {one.node: one for one in (ME, *(NODES[node] for node in others))}
    return View(me=NODE, cluster_id="", viable=True, why="", table=NO_TABLE, alive=alive)


async def test_collectors_are_told_how_many_nodes_there_are(sender: Copies, home: HomeNode) -> None:
    one, two, three = list(NODES)[:3]
    sender.look(view(one, two, three), EMPTY, wanted=True)
    assert sender.others.get() == 3 and not sender.links, "it waits to hear what is safe"
    home.pass_time(int(copies.SAFE_WAIT_S * 1e9) + 1)
    sender.look(view(one, two, three), EMPTY, wanted=True)
    assert len(sender.links) == 2
    sender.lost[one] = home.clock.boot_ns()
    sender.look(view(one, two, three), EMPTY, wanted=True)
    assert sender.others.get() == 2
    sender.look(view(one), EMPTY, wanted=True)
    assert sender.others.get() == 0 and sender.links.keys() <= {one}
    sender.look(view(one, two, three), EMPTY, wanted=False)
    assert sender.others.get() == 0 and not sender.links, "no key asks for copies"


async def test_a_node_that_was_lost_is_asked_again_only_after_a_while(sender: Copies, home: HomeNode) -> None:
    (one,) = list(NODES)[:1]
    home.pass_time(10**9)
    sender.copied[FIRST] = Position(1, 1)
    sender.lost[one] = home.clock.boot_ns()
    sender.look(view(one), EMPTY, wanted=True)
    sender.fill()  # as when a link has ended
    assert not sender.links
    home.pass_time(int(copies.RETRY_S * 1e9) + 1)
    sender.look(view(one), EMPTY, wanted=True)
    assert sender.links.keys() == {one} and sender.others.get() == 0, "not counted before it answers"


async def test_what_nobody_needs_is_never_sent(sender: Copies, home: HomeNode) -> None:
    write(home, 5)
    sender.look(view(*list(NODES)[:2]), Vector({FIRST: Position(1, 4)}), wanted=True)
    assert sender.floor() == Vector({FIRST: Position(1, 4)})


def test_kinds_of_the_lane_are_known() -> None:
    assert wire.KINDS[wire.Copy] == Kind.COPY and wire.KINDS[wire.CopyAck] == Kind.COPY_ACK
