from headwater.event.position import Position, WriterId
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log import files, retain
from headwater.log.block import Secret
from headwater.log.write import BlockWriter

SECRET = Secret(0x5EC2E7)

FOLDER = "/raw/0"
SEGMENT_BYTES = 4 * 4096


def two_segments(disk: SimDisk) -> None:
    """A log whose writer died before the name of its second segment was durable."""
    view = disk.process("set-up")
    view.mkdir(FOLDER)
    for folder in ("/", "/raw"):
        view.sync_dir(folder)
    writer = BlockWriter(
        disk.process("worker"),
        SimClock(Time()),
        FOLDER,
        WriterId(0),
        9,
        start=1,
        offset_ns=0,
        segment_bytes=SEGMENT_BYTES,
        submit=inline,
        secret=SECRET,
    )
    for _ in range(4):
        writer.write(b"payload", records=1, events=1)
    view.rename(f"{FOLDER}/{files.NEXT[0]}", files.segment_path(FOLDER, 9, 4))


def retire(disk: SimDisk, safe: Position) -> int:
    return retain.retire(
        disk.process("supervisor"),
        FOLDER,
        safe,
        wanted=lambda *_: False,
        segment_bytes=SEGMENT_BYTES,
        spares_max=1,
    ).segments


def test_a_log_without_an_end_never_loses_its_last_file() -> None:
    for seed in range(60):
        disk = SimDisk(seed)
        two_segments(disk)
        assert retire(disk, Position(9, 4)) == 1
        disk.crash()
        assert files.segments(disk.process("after"), FOLDER), f"seed {seed}"


def test_nothing_above_safe_is_given_back() -> None:
    disk = SimDisk()
    two_segments(disk)
    assert retire(disk, Position(9, 3)) == 0
    assert [s.first for s in files.segments(disk.process("look"), FOLDER)] == [0, 4]


def test_an_empty_folder_has_nothing_to_give_back() -> None:
    disk = SimDisk()
    disk.process("set-up").mkdir(FOLDER)
    assert retire(disk, Position(9, 3)) == 0


def test_held_bytes_are_those_that_would_stay() -> None:
    disk = SimDisk(1)
    two_segments(disk)
    view = disk.process("supervisor")
    whole = retain.held_bytes(view, FOLDER, Position(0, 0))
    assert retain.held_bytes(view, FOLDER, Position(9, 3)) == whole > 0
    assert retain.held_bytes(view, FOLDER, Position(9, 4)) == whole // 2
