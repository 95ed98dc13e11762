"""A mirror is read as the log itself would be, whatever happens between the two nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.event.position import EMPTY, Position, Vector, WriterId, writer_id
from headwater.kit.errors import Rejected
from headwater.lane import folder, home, wire
from headwater.lane.mirror import Mirrors, Place
from headwater.log.read import Block
from headwater.peer.frames import Kind
from tests.unit.lane.raw import gathered, is_mine, record
from tests.unit.lane.world import HOME, PARTITIONS, HomeNode, OwnerNode, carried, follow, told

FIRST = WriterId(writer_id(HOME, 0))
SINGLE = [("single", 1, 0)]
wanted_of = st.sets(st.integers(0, PARTITIONS - 1), min_size=1).map(sorted)
records_of = st.lists(record, min_size=1, max_size=6)
step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 1), records_of),
    st.tuples(st.just("write"), st.integers(0, 1), records_of),
    st.tuples(st.just("write"), st.integers(0, 1), records_of),
    st.tuples(st.just("turn"), st.integers(0, 3), st.none()),
    st.tuples(st.just("turn"), st.just(1000), st.none()),
    st.tuples(st.sampled_from(["read", "trim", "retire"]), st.none(), st.none()),
    st.tuples(st.just("restart worker"), st.integers(0, 1), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


class Pair:
    """A home and an owner, and what the owner has read."""

    def __init__(self, path: Path, wanted: list[int], cut_bytes: int) -> None:
        self.home = HomeNode(path / "home")
        self.owner = OwnerNode(path / "owner", wanted)
        self.cut_bytes = cut_bytes
        self.connect()
        self.read_blocks: list[Block] = []
        self.stands = EMPTY

    def connect(self) -> None:
        self.stream = self.home.stream(self.owner.mirror.opening(), self.cut_bytes)

    def turn(self, frames: int) -> None:
        """A turn; the connection is cut after some frames, and made again."""
        self.home.pass_time(1)
        made = self.stream.turn()
        self.owner.take(made[:frames])
        if len(made) > frames:
            self.read()
            self.stream.close()
            self.connect()
        else:
            self.stream.credit = 1 << 30

    def read(self) -> None:
        """What the owner can read now is a beginning of what was acknowledged, in that order (INV-ORD-1)."""
        owner = self.owner
        found, self.stands = follow(
            owner.disk, owner.raw, owner.secret, self.home.now(), self.stands, owner.folder, None, 8192
        )
        assert all(block.payload is not None for block in found)
        self.read_blocks += found
        places = [
            (int(b.writer), b.header.log_id, b.header.first_seq, b.header.events) for b in self.read_blocks
        ]
        assert sorted(places) == sorted(self.home.written[: len(places)])

    def do(self, what: str, number: Any, records: Any) -> None:
        if what == "write":
            self.home.write(number, records)
        elif what == "turn":
            self.turn(number)
        elif what == "read":
            self.read()
        elif what == "trim":
            self.owner.mirror.trim(self.stands)
        elif what == "retire":
            self.home.retire(self.stands)
        elif what == "restart worker":
            self.home.restart_worker(number)
        else:
            self.home.restart()

    def finish(self) -> None:
        for _ in range(1000):
            frames = self.stream.turn()
            self.stream.credit = 1 << 30
            self.owner.take(frames)
            if not frames:
                return
        raise AssertionError("a home that stands still goes on talking")


@contextmanager
def small_things() -> Iterator[Path]:
    """Frames of 300 bytes and mirrored segments of four pages, in a folder of this example."""
    with (
        tempfile.TemporaryDirectory() as path,
        mock.patch.object(wire, "BODY_BYTES_MAX", 300),
        mock.patch.object(folder, "SEGMENT_BYTES", 4 * 4096),
        mock.patch.object(folder, "LAST_SEGMENT_BYTES_MIN", 4096),
    ):
        yield Path(path)


@pytest.mark.slow
@given(st.lists(step, max_size=40), wanted_of, st.sampled_from([1, 8192, 1 << 20]))
def test_inv_lane_1_a_mirror_gives_the_events_of_the_log_whatever_happens(
    steps: list[tuple[str, Any, Any]], wanted: list[int], cut_bytes: int
) -> None:
    """INV-LANE-1, INV-LOG-2, INV-LOG-5, INV-ORD-1: connections are cut in the middle, workers and the home start again,
    segments are recycled behind the reader, the mirror is trimmed."""
    with small_things() as path:
        pair = Pair(path, wanted, cut_bytes)
        oracle = HomeNode(path / "oracle")  # the same writes in a log that nothing happens to but restarts
        for what, number, records in steps:
            pair.do(what, number, records)
            if what not in ("turn", "read", "trim", "retire"):
                getattr(oracle, what.replace(" ", "_"))(
                    *[one for one in (number, records) if one is not None]
                )
        pair.finish()
        pair.read()
        assert len(pair.read_blocks) == len(pair.home.written)
        assert dict(pair.stands) == dict(pair.home.ends())
        blocks, _ = follow(oracle.disk, oracle.raw, oracle.secret, oracle.now(), EMPTY)
        expected = [e[:4] + e[5:] for e in gathered(blocks) if is_mine(e, wanted, PARTITIONS)]
        assert sorted(e[:4] + e[5:] for e in gathered(pair.read_blocks)) == sorted(expected)
        assert pair.owner.mirror.at == dict(pair.home.ends().items())
        pair.owner.mirror.close()


@pytest.mark.slow
@given(st.lists(records_of, min_size=3, max_size=12), st.data())
def test_what_the_home_has_given_back_is_the_same_gap_in_the_mirror(
    blocks: list[Any], data: st.DataObject
) -> None:
    with small_things() as path:
        home = HomeNode(path / "home", segment_bytes=2 * 4096)
        vectors = [EMPTY]
        for records in blocks:
            home.write(0, records)
            vectors.append(home.ends())
            if data.draw(st.integers(0, 4)) == 0:
                home.restart_worker(0)
        origin = data.draw(st.sampled_from(vectors))
        home.retire(data.draw(st.sampled_from(vectors)))
        owner = OwnerNode(path / "owner", range(PARTITIONS), origin)
        stream = home.stream(owner.mirror.opening(), data.draw(st.sampled_from([1, 8192, 1 << 20])))
        while frames := stream.turn():
            owner.take(frames)
            stream.credit = 1 << 30
        here, at_home = follow(home.disk, home.raw, home.secret, home.now(), origin)
        there, at_owner = follow(owner.disk, owner.raw, owner.secret, home.now(), origin, owner.folder)
        assert told(there) == told(here) and dict(at_owner) == dict(at_home)
        lost = sum(block.header.events for block in here if block.payload is None)
        assert sum(log.missing for log in owner.mirror.logs.values()) == lost
        owner.mirror.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, [1], 1 << 20)
    yield made
    made.stream.close()
    made.owner.mirror.close()


def test_inv_lane_1_a_block_that_begins_elsewhere_is_not_taken(pair: Pair) -> None:
    for _ in range(3):
        pair.home.write(0, SINGLE)
    frame = pair.stream.turn()[0]
    data = wire.data(carried(frame))
    for change in ({"first_seq": 1}, {"log": 0}):
        heads = [msgspec.structs.replace(one, **change) for one in data.blocks]
        with pytest.raises(Rejected, match="a block of log"):
            pair.owner.mirror.take(msgspec.structs.replace(data, blocks=heads), memoryview(frame.body))
    pair.owner.take([frame])
    with pytest.raises(Rejected, match=r"expected .* at 3"):
        pair.owner.take([frame])
    assert pair.owner.mirror.at == {FIRST: Position(1, 3)}


def test_inv_lane_1_no_later_log_is_taken_before_the_end_of_the_one_before(pair: Pair) -> None:
    pair.home.write(0, SINGLE)
    pair.turn(1000)
    pair.home.restart_worker(0)
    pair.home.write(0, SINGLE)
    frames = pair.stream.turn()
    assert [frame.kind for frame in frames] == [Kind.ENDED, Kind.DATA]
    with pytest.raises(Rejected, match="a block of log"):
        pair.owner.take(frames[1:])
    with pytest.raises(Rejected, match="is said to end at 7"):
        pair.owner.take([wire.outgoing(wire.Ended(stream="main", writer=int(FIRST), log=1, seq=7))])


def test_inv_ord_1_half_a_cut_is_not_read(pair: Pair) -> None:
    """The owner sees the first worker's block only with the second's, which was acknowledged before it."""
    pair.home.write(0, SINGLE)
    pair.turn(1000)
    pair.read()
    pair.home.write(1, SINGLE)
    pair.home.write(0, SINGLE)
    with mock.patch.object(wire, "BODY_BYTES_MAX", 64):
        frames = pair.stream.turn()
    for frame in frames[:-1]:
        pair.owner.take([frame])
        pair.read()
    assert len(pair.read_blocks) == 1
    pair.owner.take(frames[-1:])
    pair.read()
    assert len(pair.read_blocks) == 3


def test_inv_ord_1_a_cut_that_a_backlog_cut_short_goes_only_so_far(pair: Pair) -> None:
    for worker in (0, 1, 0, 1):
        pair.home.write(worker, SINGLE)
    pair.stream.cut_bytes = 1
    before = pair.home.now()
    pair.turn(1000)
    assert pair.owner.mirror.moment < before
    with mock.patch.object(wire, "BODY_BYTES_MAX", 64):
        for number in range(40):
            pair.turn(number)  # cut off anywhere; what is there is read, and is a beginning
            pair.home.write(number % 2, SINGLE)


def a_lost_frame(pair: Pair) -> None:
    """Of three blocks in three frames, the second never comes; what the owner then reads."""
    frames = []
    for _ in range(3):
        pair.home.write(0, SINGLE)
        frames += pair.stream.turn()
        pair.stream.credit = 1 << 30
    pair.owner.take([frames[0], frames[2]])
    pair.read()


def test_inv_lane_1_a_frame_that_was_lost_is_noticed(pair: Pair) -> None:
    with pytest.raises(Rejected, match=r"expected .* at 1"):
        a_lost_frame(pair)


@pytest.mark.broken_variant
def test_inv_lane_1_taking_whatever_comes_is_found(pair: Pair) -> None:
    with mock.patch.object(folder.MirrorLog, "check"), pytest.raises(AssertionError):
        a_lost_frame(pair)


def a_backlog(pair: Pair) -> None:
    """It comes cut by cut, each cut off in the middle at first; the owner reads after every connection."""
    for number in range(24):
        pair.home.write(number % 2, SINGLE)
    pair.stream.cut_bytes = pair.cut_bytes = 4 * 4096
    with mock.patch.object(wire, "BODY_BYTES_MAX", 64):
        for frames in range(1, 16):
            pair.turn(1000)
            pair.read()
            pair.turn(frames)


def test_inv_ord_1_cuts_of_a_backlog_are_whole(pair: Pair) -> None:
    a_backlog(pair)
    assert len(pair.read_blocks) == 24


@pytest.mark.broken_variant
def test_inv_ord_1_a_time_that_a_backlog_does_not_lower_is_found(pair: Pair) -> None:
    later = mock.patch.object(home, "lowered", lambda bound, blocks: pair.home.now())
    with later, pytest.raises(AssertionError):
        a_backlog(pair)


def test_a_connection_that_is_cut_inside_of_a_block_costs_nothing(pair: Pair) -> None:
    with mock.patch.object(wire, "BODY_BYTES_MAX", 64):
        for frames in range(8):
            pair.home.write(0, SINGLE)
            pair.turn(frames)
    pair.finish()
    pair.read()
    assert len(gathered(pair.read_blocks)) == 8


def test_a_body_that_was_spoilt_on_its_way_is_refused(pair: Pair) -> None:
    pair.home.write(0, SINGLE)
    (frame,) = pair.stream.turn()
    spoilt = frame._replace(body=frame.body[:-1] + b"?")
    with pytest.raises(Rejected, match="was spoilt on its way"):
        pair.owner.take([spoilt])


def test_a_home_sends_no_blocks_of_other_nodes(pair: Pair) -> None:
    foreign = wire.BlockHead(HOME + (1 << 16), 1, 0, 1, 1, 1, 1, 1, 0)
    with pytest.raises(Rejected, match="of the writer"):
        pair.owner.mirror.take(wire.Data(stream="main", blocks=[foreign]), memoryview(b""))


def test_a_stream_without_credit_sends_no_block_and_says_that_it_is_alive(pair: Pair) -> None:
    pair.home.write(0, SINGLE)
    pair.stream.credit = 0
    pair.home.pass_time(2 * 10**9)
    (frame,) = pair.stream.turn()
    assert wire.data(carried(frame)) == wire.data(carried(wire.alive("main")))
    pair.owner.take([frame])
    assert pair.stream.turn() == []
    pair.stream.credit = 1
    assert wire.data(carried(pair.stream.turn()[0])).blocks


def test_that_a_cut_was_the_last_of_a_backlog_is_said_at_once(pair: Pair) -> None:
    """All was given back; of a cut of one byte nobody knows before the next whether there is more."""
    owner = pair.owner
    for _ in range(5):
        pair.home.write(0, SINGLE)
    pair.home.restart_worker(0)
    pair.home.retire(pair.home.ends())
    stream = pair.home.stream(owner.mirror.opening(), 1)
    owner.take(stream.turn())
    owner.take(stream.turn())
    assert owner.mirror.moment == pair.home.now()
    assert stream.turn() == []
    blocks, stands = follow(owner.disk, owner.raw, owner.secret, pair.home.now(), EMPTY, owner.folder)
    assert [block.header.events for block in blocks] == [5] and dict(stands) == dict(pair.home.ends())
    stream.close()


def test_time_moves_on_without_events(pair: Pair) -> None:
    pair.home.pass_time(2 * 10**9)
    pair.turn(1000)
    assert pair.owner.mirror.moment == pair.home.now()._replace()
    assert pair.stream.turn() == []


def test_a_block_that_is_larger_than_a_frame_arrives_whole(pair: Pair) -> None:
    pair.home.segment_bytes = 8 << 20
    pair.home.write(0, SINGLE, body_bytes=3_000_000)
    frames = pair.stream.turn()
    assert max(len(frame.body) for frame in frames) <= wire.BODY_BYTES_MAX < 3_000_000
    pair.owner.take(frames)
    pair.read()
    assert len(gathered(pair.read_blocks)[0][3]) >= 3_000_000


def test_trimming_gives_back_what_lies_below_and_nothing_else(pair: Pair) -> None:
    with mock.patch.object(folder, "SEGMENT_BYTES", 2 * 4096):
        for _ in range(7):
            pair.home.write(0, SINGLE)
        pair.turn(1000)
    (log,) = pair.owner.mirror.logs.values()
    assert log.bytes == 7 * 4096
    pair.owner.mirror.trim(Vector({FIRST: Position(1, 5)}))
    assert log.bytes == 3 * 4096
    pair.stands = Vector({FIRST: Position(1, 5)})
    blocks, _ = follow(
        pair.owner.disk, pair.owner.raw, pair.owner.secret, pair.home.now(), pair.stands, pair.owner.folder
    )
    assert [block.header.first_seq for block in blocks if block.payload is not None] == [5, 6]


async def test_streams_have_names_that_are_folders_and_end_with_their_files(tmp_path: Path) -> None:
    home = HomeNode(tmp_path / "home")
    (tmp_path / "mirror" / "left").mkdir(parents=True)
    place = Place(home.disk, f"{tmp_path}/mirror", home.secret, home.clock)
    mirrors = Mirrors(place, "0" * 16, None, None, 1 << 30)  # type: ignore[arg-type]
    assert home.disk.listdir(place.root) == []
    for name in ("", "../x", "a/b", "A", "x" * 65):
        with pytest.raises(Rejected, match="not the name of a stream"):
            await mirrors.open(name, [1], EMPTY)
    assert await mirrors.open("one", [1], EMPTY, EMPTY) == f"{place.root}/one"
    assert mirrors.status("one") == {
        "complete": True,
        "at": EMPTY.encode().hex(),
        "missing": {},
        "silent": [],
    }
    until = Vector({FIRST: Position(1, 3)})
    await mirrors.open("one", [1], EMPTY, until)
    assert mirrors.status("one")["complete"] is False and mirrors.status("one")["silent"] == [f"{HOME:016x}"]
    await mirrors.close("one")
    assert home.disk.listdir(place.root) == []
    with pytest.raises(Rejected, match="no stream"):
        mirrors.status("one")
