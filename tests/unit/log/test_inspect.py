"""Inspecting a log: it counts what is there and names what is damaged."""

from __future__ import annotations

from pathlib import Path

from headwater.event.position import WriterId
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log import inspect, recover
from headwater.log.block import Secret
from headwater.log.write import BlockWriter

SECRET = Secret(0x5EC2E7)

DISK = SystemDisk()


def write(folder: Path, blocks: int) -> Path:
    """A log of blocks of ten events; the path of its segment."""
    writer = BlockWriter(
        DISK,
        SystemClock(),
        str(folder),
        WriterId(1),
        7,
        start=1,
        offset_ns=0,
        segment_bytes=8 << 20,
        submit=inline,
        secret=SECRET,
    )
    for number in range(blocks):
        writer.write(b"x" * 5000 + bytes([number]), records=2, events=10)
    writer.close()
    return next(p for p in folder.glob("*.seg") if p.name != "next.seg")


def test_a_whole_log_has_no_problems(tmp_path: Path) -> None:
    write(tmp_path, 5)
    (state,) = inspect.inspect(DISK, str(tmp_path), SECRET)
    assert (state.next_seq, state.blocks, state.records, state.used_bytes, state.problems) == (
        50,
        5,
        10,
        5 * 8192,
        [],
    )


def test_a_damaged_block_is_named_with_its_events(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    with path.open("r+b") as file:
        file.seek(2 * 8192 + 100)
        file.write(b"!")
    (state,) = inspect.inspect(DISK, str(tmp_path), SECRET)
    assert state.problems == ["offset 16384: events 20 to 29 are damaged"]
    assert state.next_seq == 50


def test_a_log_cut_below_its_end_is_said_to_miss_events(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    recover.recover(DISK, str(tmp_path), 7, SECRET, recover.no_streams)
    with path.open("r+b") as file:
        file.truncate(3 * 8192)
    (state,) = inspect.inspect(DISK, str(tmp_path), SECRET)
    assert state.problems == ["offset 24576: events 30 to 49 are missing or damaged"]
