import pytest

from headwater.config.report import Report
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from headwater.node import nodetime
from headwater.node.retention import headroom_bytes, keep, room_each, safe_vector
from headwater.node.roles.collect import Room

SECRET = Secret(0x5EC2E7)

W = WriterId(7)


def at(seq):
    return Vector({W: Position(1, seq)})


def hexed(seq):
    return at(seq).encode().hex()


def process(**groups):
    vectors = [{"partitions": parts, "vector": hexed(int(seq[1:]))} for seq, parts in groups.items()]
    return Report(role="process-0", pid=1, start=1, detail={"vectors": vectors})


def deliver(**destinations):
    told = {
        name: {"vectors": {hexed(seq): parts for seq, parts in v.items()}} for name, v in destinations.items()
    }
    return Report(role="deliver-x", pid=1, start=1, detail={"destinations": told})


def test_safe_is_what_everybody_has_passed():
    reports = {"p": process(s9=[0], s5=[1]), "d": deliver(a={4: [0, 1]}, b={8: [0, 1]})}
    assert safe_vector(reports, 2, ["a", "b"]) == at(4)
    assert safe_vector(reports, 2, ["b"]) == at(5)
    assert safe_vector(reports, 2, []) == at(5)


def test_nothing_is_safe_while_anybody_has_not_said_where_they_stand():
    assert safe_vector({}, 2, []) == EMPTY
    assert safe_vector({"p": process(s9=[0])}, 2, []) == EMPTY  # partition 1 is missing
    assert safe_vector({"p": process(s9=[0, 1])}, 2, ["a"]) == EMPTY
    assert safe_vector({"p": process(s9=[0, 1]), "d": deliver(a={4: [0]})}, 2, ["a"]) == EMPTY


SEGMENT = 8 * 1024 * 1024


def test_delivered_events_never_keep_new_ones_out_of_a_full_log():
    """The quota is 5.5 segments: with 5 there and 4 read by everybody, two must find room."""
    disk = SimDisk().process("supervisor")
    raw = "/raw"
    folder = f"{raw}/{W:016x}"
    blocks = BlockWriter(
        disk,
        SimClock(Time()),
        folder,
        W,
        1,
        start=1,
        offset_ns=0,
        segment_bytes=SEGMENT,
        submit=inline,
        secret=SECRET,
    )
    for _ in range(8):
        blocks.write(bytes(SEGMENT // 2 - 8192), records=1, events=1)
    quota = SEGMENT * 11 // 2

    def kept(safe):
        return keep(
            disk, raw, Vector({W: Position(1, safe)}), SECRET, now_ns=1, retain_s=86_400.0, raw_bytes_max=quota,
            headroom_bytes=headroom_bytes(SEGMENT, 1), segment_bytes=SEGMENT, spares_max=4,
        )  # fmt: skip

    assert kept(0).retired_segments == 0
    told = kept(8)
    assert told.shortened
    assert room_each(told.raw_bytes, quota, 1 << 40, 0, 1) >= 2 * SEGMENT
    assert kept(8).retired_segments == 0  # and no more than that: the rest is wanted for replay


def test_a_worker_takes_what_was_said_only_once_until_it_is_said_again():
    said, now = 3 * SEGMENT, 0
    room = Room(lambda: said, SEGMENT, lambda: now)
    assert [room.take() for _ in range(4)] == [True, True, True, False]
    said = SEGMENT
    assert [room.take() for _ in range(2)] == [True, False]
    now += 6_000_000_000
    assert [room.take() for _ in range(2)] == [True, False]


def test_room_is_shared_and_never_negative():
    assert room_each(10, 110, 1000, 100, 2) == 50
    assert room_each(10, 110, 120, 100, 2) == 10
    assert room_each(200, 110, 1000, 100, 2) == 0


def test_node_time_is_slewed_by_500_ppm_and_never_stepped():
    second = 10**9
    assert nodetime.slewed_ns(0, wall_ns=86_400 * second, boot_ns=0, elapsed_ns=second) == 500_000
    assert nodetime.slewed_ns(0, wall_ns=-86_400 * second, boot_ns=0, elapsed_ns=second) == -500_000
    assert nodetime.slewed_ns(100, wall_ns=250, boot_ns=100, elapsed_ns=second) == 150


def ten_in_each_of_four_segments(tmp_path, size):
    folder = tmp_path / f"{W:016x}"
    folder.mkdir()
    for number in range(4):
        data = block.encode(
            [b"x"],
            log_id=1,
            first_seq=10 * number,
            events=10,
            records=1,
            node_time_ns=1000,
            boot_ns=1000,
            secret=SECRET,
        )
        (folder / f"{1:016x}-{10 * number:016x}.seg").write_bytes(data.ljust(size, b"\0"))
    return folder


def test_the_quota_is_the_law_also_just_below_it_and_nothing_above_safe_goes(tmp_path):
    """protocol.md §17.9: collectors stop below the quota, so it is the room for their next segment that counts."""
    disk, size = SystemDisk(), 64 * 1024
    folder = ten_in_each_of_four_segments(tmp_path, size)

    def kept(safe, room):
        found = keep(
            disk, str(tmp_path), at(safe), SECRET, now_ns=2000, retain_s=86400, raw_bytes_max=4 * size + 100,
            segment_bytes=size, spares_max=4, headroom_bytes=room,
        )  # fmt: skip
        return found.shortened, [s.first for s in files.segments(disk, str(folder))]

    assert kept(40, 0) == (False, [0, 10, 20, 30])
    assert kept(5, size) == (False, [0, 10, 20, 30])
    assert kept(25, size) == (True, [10, 20, 30])
    assert kept(25, size) == (False, [10, 20, 30])


@pytest.mark.parametrize(
    ("safe", "room", "left"), [(0, 0, [0, 10, 20, 30]), (0, 1, [10, 20, 30]), (10, 2, [20, 30]), (0, 9, [30])]
)
def test_what_is_written_off_goes_only_as_far_as_room_is_needed(tmp_path, safe, room, left):
    disk, size = SystemDisk(), 64 * 1024
    folder = ten_in_each_of_four_segments(tmp_path, size)
    told = keep(
        disk, str(tmp_path), at(safe), SECRET, at(35), now_ns=2000, retain_s=86400, raw_bytes_max=4 * size,
        segment_bytes=size, spares_max=4, headroom_bytes=room * size,
    )  # fmt: skip
    assert [s.first for s in files.segments(disk, str(folder))] == left
    assert told.given_up_segments == 4 - len(left) - safe // 10
    assert told.raw_bytes == size * len(left)
