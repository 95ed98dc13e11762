"""The Kafka lane without a broker: frames, cursors, INV-LANE-1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.errors import Broken, Unavailable
from headwater.kit.simulate import loop
from headwater.lane.kafka import frame as frames
from headwater.lane.kafka.frame import Block, Frame
from headwater.lane.kafka.lane import Cursor, Gap, LaneHome, Reader, Taken

WRITER = WriterId(0xAB0001)


def block(first: int, events: int = 10) -> Block:
    return Block(first, events, b"header", b"payload %d" % first)


def at(seq: int, log: int = 1) -> Position:
    return Position(log, seq)


def test_frames_come_back_as_they_were() -> None:
    frame = Frame(7, WRITER, at(0), at(20), (block(0), block(10)), b"cut")
    assert frames.decode(frames.encode(frame)) == frame
    assert frames.encode(frame)[:1] == b"\x01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02abc",
        b"\x01abc",
        b"\x01" + bytes(50),
        frames.encode(Frame(1, WRITER, at(5), at(4))),
        frames.encode(Frame(1, WRITER, at(0), at(30), (block(0), block(20)))),
        frames.encode(Frame(1, WRITER, at(0), at(30), (block(0), block(10)))),
    ],
)
def test_bytes_that_are_no_frame_or_contradict_themselves_are_refused(data: bytes) -> None:
    with pytest.raises(Broken):
        frames.decode(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Broken):
        frames.decode(b"\x01" + data)


def test_a_long_cut_becomes_frames_of_bounded_size_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES", 40)
    blocks = [block(n) for n in range(0, 100, 10)]
    pieces = list(frames.frames(7, WRITER, at(90, log=0), at(120), blocks, b"T"))
    assert [piece.begin for piece in pieces] == [at(90, log=0), *(piece.to for piece in pieces[:-1])]
    assert pieces[-1].to == at(120)
    assert [piece.cut for piece in pieces] == [b""] * (len(pieces) - 1) + [b"T"]
    assert [one for piece in pieces for one in piece.blocks] == blocks
    for piece in pieces:
        assert frames.decode(frames.encode(piece)) == piece
        assert len(piece.blocks) <= 2


def test_inv_lane_1_a_frame_above_mine_is_not_taken_and_below_mine_is_ignored() -> None:
    reader = Reader({WRITER: at(20)}, from_start=True)
    assert reader.apply(Frame(7, WRITER, at(30), at(40), (block(30),))) == Gap(at(20), at(30))
    assert reader.vector == {WRITER: at(20)}
    assert reader.apply(Frame(7, WRITER, at(0), at(20), (block(0), block(10)))) == Taken(())
    assert reader.apply(
        Frame(7, WRITER, at(0), at(40), (block(0), block(10), block(20), block(30)))
    ) == Taken([block(20), block(30)])
    assert reader.vector == {WRITER: at(40)}


def test_a_new_log_of_a_writer_begins_where_the_former_ended() -> None:
    reader = Reader({WRITER: at(20)}, from_start=False)
    assert reader.apply(Frame(7, WRITER, at(30), at(10, log=2), (block(0),))) == Gap(at(20), at(30))
    assert reader.apply(Frame(7, WRITER, at(20), at(10, log=2), (block(0),))) == Taken([block(0)])
    assert reader.vector == {WRITER: at(10, log=2)}


def test_an_unknown_writer_is_a_baseline_only_at_the_start_of_the_topic() -> None:
    frame = Frame(7, WRITER, at(30), at(40), (block(30),))
    assert Reader({}, from_start=False).apply(frame) == Gap(ZERO, at(30))
    assert Reader({}, from_start=True).apply(frame) == Taken([block(30)], (ZERO, at(30)))


def test_a_block_is_never_taken_in_part() -> None:
    with pytest.raises(Broken, match="inside the block from 10"):
        Reader({WRITER: at(15)}, from_start=True).apply(Frame(7, WRITER, at(10), at(20), (block(10),)))


def test_the_cursor_is_the_least_that_all_partitions_acknowledged() -> None:
    cursor = Cursor(2)
    first = cursor.send(0, WRITER, at(10))
    second = cursor.send(0, WRITER, at(20))
    other = cursor.send(1, WRITER, at(15))
    second()
    other()
    assert cursor.at(WRITER) == ZERO  # the first of partition 0 may be lost
    first()
    assert cursor.at(WRITER) == at(15)
    assert cursor.behind(WRITER, at(20)) == [1]
    with pytest.raises(Broken):
        cursor.send(0, WRITER, at(19))


class Topic:
    """A producer into one partition each; some sends fail, with or without having arrived."""

    def __init__(self, outcomes: Sequence[str]) -> None:
        self.outcomes = list(outcomes)
        self.records: dict[int, list[bytes]] = {}

    async def send_many(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes]], *, partition: int
    ) -> None:
        outcome = self.outcomes.pop() if self.outcomes else "fine"
        if outcome != "lost":
            arrived = records if outcome != "half" else records[: len(records) // 2]
            self.records.setdefault(partition, []).extend(value for _, value in arrived)
        if outcome != "fine":
            raise Unavailable("no answer")


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["fine", "lost", "half", "unknown"]), max_size=12),
    st.lists(st.integers(1, 4), min_size=1, max_size=10),
    st.sets(st.integers(0, 9), max_size=3),
    st.sets(st.integers(1, 8), max_size=2),
)
def test_inv_lane_1_failing_sends_and_restarts_from_the_cursor_give_each_block_once_in_order(
    outcomes: list[str], cuts: list[int], restarts: set[int], logs: set[int]
) -> None:
    """A home that restarts from its cursor, and a reader that asks on a gap: nothing missing, nothing twice."""
    topic = Topic(outcomes)
    whole: list[tuple[Position, Block]] = []  # the home's log: where each block ends
    log, seq, ends = 1, 0, []
    for number, blocks in enumerate(cuts):
        if number in logs:
            log, seq = log + 1, 0
        for _ in range(blocks):
            whole.append((Position(log, seq + 10), block(seq)))
            seq += 10
        ends.append(Position(log, seq))

    async def main() -> None:
        cursor = Cursor(2)
        home = LaneHome(topic, "raw", 7, cursor)
        for number, end in enumerate(ends):
            if number in restarts:
                cursor = Cursor(2, {WRITER: cursor.at(WRITER)})
                home = LaneHome(topic, "raw", 7, cursor)
            for partition in (0, 1):
                while (begin := cursor.next(partition, WRITER)) < end:
                    upto = next(one for one in ends if one > begin)
                    new = [one for stop, one in whole if begin < stop <= upto]
                    try:
                        await home.send(partition, WRITER, upto, new)
                    except Unavailable:
                        pass
        assert cursor.at(WRITER) == ends[-1]

    loop.run(main(), 1)
    for partition in (0, 1):
        reader = Reader({}, from_start=True)
        taken: list[Block] = []
        for record in topic.records[partition]:
            result = reader.apply(frames.decode(record))
            if isinstance(result, Taken):
                assert result.skipped is None
                taken += result.blocks
        assert taken == [one for _, one in whole]
        assert reader.vector == {WRITER: ends[-1]}


def take_what_comes(reader: Reader, frame: Frame) -> Sequence[Block]:
    """INV-LANE-1 left out."""
    reader.vector[frame.writer] = frame.to
    return frame.blocks


def take_what_begins_here(reader: Reader, frame: Frame) -> Sequence[Block]:
    result = reader.apply(frame)
    return result.blocks if isinstance(result, Taken) else ()


@pytest.mark.parametrize(
    ("take", "right"),
    [(take_what_begins_here, True), pytest.param(take_what_comes, False, marks=pytest.mark.broken_variant)],
)
def test_inv_lane_1_left_out_a_repeated_frame_doubles(
    take: Callable[[Reader, Frame], Sequence[Block]], right: bool
) -> None:
    reader = Reader({}, from_start=True)
    repeated = [
        Frame(7, WRITER, at(0), at(10), (block(0),)),
        Frame(7, WRITER, at(0), at(20), (block(0), block(10))),
    ]
    taken = [one for frame in repeated for one in take(reader, frame)]
    assert (taken == [block(0), block(10)]) is right
