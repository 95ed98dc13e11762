"""Where a log ends: what lies below the durable watermark and is gone is damage, what is torn above it is not."""

from __future__ import annotations

import pytest

from headwater.event.position import ZERO, Position, WriterId
from headwater.event.record import Head, encode_head, encode_payload
from headwater.kit.disk import write_whole
from headwater.kit.errors import Broken
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.threads import inline
from headwater.log import files, inspect, recover, retain
from headwater.log.block import Secret
from headwater.log.files import Damage, End
from headwater.log.read import LogReader
from headwater.log.write import BlockWriter
from headwater.node.roles.process import meaning
from headwater.process.gather import Gatherer

SECRET = Secret(0x5EC2E7)

FOLDER = "/raw/0"
WRITER = WriterId(0)
LOG = 9
PAGE = 4096
EVERYTHING = (1 << 62, 1 << 62)


def write(disk: SimDisk, count: int, log: int = LOG, segment_pages: int = 16) -> None:
    """A log of ``count`` blocks of one event and one page each; its process is gone."""
    view = disk.process("worker")
    writer = BlockWriter(
        view, SimClock(Time()), FOLDER, WRITER, log,
        start=1, offset_ns=0, segment_bytes=segment_pages * PAGE, submit=inline, secret=SECRET,
    )  # fmt: skip
    head = encode_head(Head("web", "native", "POST", "/events"))
    for number in range(count):
        stamp = bytes(24) + (2).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + bytes(12)
        streams = {"web": (1, number + 1)}
        writer.write(encode_payload([stamp], [b"{}"], [head], [], streams, 1), records=1, events=1)
    view.kill()


def spoil(disk: SimDisk, *numbers: int) -> None:
    """Bytes of these blocks of the first segment change on the disk."""
    view = disk.process("rot")
    file = view.open(files.segments(view, FOLDER)[0].path, write=True)
    for number in numbers:
        view.pwrite(file, b"rot", number * PAGE + 100)


def set_watermark(disk: SimDisk, value: int) -> None:
    disk.process("watermark").cell(files.watermark_path(FOLDER, LOG), write=True).set(value)


def recovered(disk: SimDisk) -> End:
    return recover.recover(disk.process("supervisor"), FOLDER, LOG, SECRET)


def read(disk: SimDisk, at: Position = ZERO) -> list[tuple[int, int, int, bool]]:
    """What a reader gets: log, first, next, whether it is there."""
    reader = LogReader(disk.process("processor"), FOLDER, WRITER, at, secret=SECRET)
    reader.fill(1 << 20)
    return [
        (b.header.log_id, b.header.first_seq, b.header.next_seq, b.payload is not None)
        for b in reader.take(EVERYTHING)
    ]


def test_what_is_gone_below_the_watermark_is_damage_and_reading_goes_on_behind_it() -> None:
    disk = SimDisk()
    write(disk, 5)
    spoil(disk, 3, 4)
    end = recovered(disk)
    assert end == End(log=LOG, seq=5, streams={"web": 3, "": 2}, damaged=[Damage(3, 5)])
    write(disk, 1, log=20)
    assert read(disk, Position(LOG, 2)) == [(LOG, 2, 3, True), (LOG, 3, 5, False), (20, 0, 1, True)]


def test_damage_in_the_middle_and_at_the_end_are_two() -> None:
    disk = SimDisk()
    write(disk, 6)
    spoil(disk, 1, 5)
    assert recovered(disk).damaged == [Damage(1, 2), Damage(5, 6)]


def test_a_torn_tail_above_the_watermark_is_no_damage() -> None:
    disk = SimDisk()
    write(disk, 5)
    spoil(disk, 3, 4)
    set_watermark(disk, 3)
    assert recovered(disk) == End(log=LOG, seq=3, streams={"web": 3})
    assert read(disk) == [(LOG, n, n + 1, True) for n in range(3)]


def test_a_torn_tail_is_given_back_and_lost_bytes_are_kept_to_be_looked_at() -> None:
    sizes = []
    for watermark in (3, 5):
        disk = SimDisk()
        write(disk, 5)
        spoil(disk, 3, 4)
        set_watermark(disk, watermark)
        recovered(disk)
        view = disk.process("look")
        sizes.append(view.size(view.open(files.segments(view, FOLDER)[0].path)))
    assert sizes == [3 * PAGE, 16 * PAGE]


@pytest.mark.parametrize("watermark", [0, 2, 3])
def test_an_old_watermark_takes_nothing_away(watermark: int) -> None:
    disk = SimDisk()
    write(disk, 3)
    set_watermark(disk, watermark)
    assert recovered(disk) == End(log=LOG, seq=3, streams={"web": 3})


@pytest.mark.parametrize("bytes_left", [None, 0, 5])
def test_without_a_whole_watermark_the_blocks_decide(bytes_left: int | None) -> None:
    disk = SimDisk()
    write(disk, 3)
    spoil(disk, 2)
    view = disk.process("fault")
    path = files.watermark_path(FOLDER, LOG)
    if bytes_left is None:
        view.unlink(path)
    else:
        view.truncate(view.open(path, write=True), bytes_left)
    assert recovered(disk).seq == 2


def test_a_watermark_that_cannot_be_says_nothing() -> None:
    disk = SimDisk()
    write(disk, 3)
    set_watermark(disk, 1 << 60)
    assert recovered(disk) == End(log=LOG, seq=3, streams={"web": 3})


def test_a_log_of_which_only_the_watermark_is_left_is_damage_from_its_beginning() -> None:
    disk = SimDisk()
    write(disk, 3)
    view = disk.process("fault")
    view.unlink(files.segments(view, FOLDER)[0].path)
    assert recovered(disk) == End(log=LOG, seq=3, streams={"": 3}, damaged=[Damage(0, 3)])
    assert read(disk) == [(LOG, 0, 3, False)]


def test_a_last_segment_without_a_readable_block_is_damage_behind_the_one_before_it() -> None:
    disk = SimDisk()
    write(disk, 5, segment_pages=4)
    view = disk.process("rot")
    last = files.segments(view, FOLDER)[-1]
    assert last.first == 4
    view.pwrite(view.open(last.path, write=True), b"rot", 0)
    assert recovered(disk) == End(log=LOG, seq=5, streams={"web": 4, "": 1}, damaged=[Damage(4, 5)])
    assert read(disk)[3:] == [(LOG, 3, 4, True), (LOG, 4, 5, False)]


def test_what_is_gone_before_a_segment_without_a_readable_block_is_counted_too() -> None:
    disk = SimDisk()
    write(disk, 4, segment_pages=4)
    view = disk.process("next segment")
    view.rename(f"{FOLDER}/{files.NEXT[0]}", files.segment_path(FOLDER, LOG, 4))
    spoil(disk, 2, 3)
    assert recovered(disk) == End(log=LOG, seq=4, streams={"web": 2, "": 2})
    assert read(disk)[2:] == [(LOG, 2, 4, False)]


def test_deciding_again_after_a_death_decides_the_same() -> None:
    for calls in range(1, 12):
        disk = SimDisk()
        write(disk, 5)
        spoil(disk, 4)
        dying = disk.process("first supervisor")
        dying.die_at(calls)
        try:
            recover.recover(dying, FOLDER, LOG, SECRET)
        except BaseException as error:
            assert type(error).__name__ == "Dead"
        assert recovered(disk) == End(log=LOG, seq=5, streams={"web": 4, "": 1}, damaged=[Damage(4, 5)])


def test_lost_events_are_counted_as_damaged() -> None:
    disk = SimDisk()
    write(disk, 5)
    spoil(disk, 3, 4)
    recovered(disk)
    reader = LogReader(disk.process("processor"), FOLDER, WRITER, secret=SECRET)
    reader.fill(1 << 20)
    events = Gatherer(meaning).gather(reader.take(EVERYTHING))
    assert (len(events), events.damaged) == (3, {"": 2})


def test_inspect_names_lost_events_before_and_after_the_end_is_decided() -> None:
    disk = SimDisk()
    write(disk, 5)
    spoil(disk, 3, 4)
    said = [f"offset {3 * PAGE}: events 3 to 4 are missing or damaged"]
    assert inspect.inspect(disk.process("look"), FOLDER, SECRET)[0].problems == said
    recovered(disk)
    assert inspect.inspect(disk.process("look"), FOLDER, SECRET)[0].problems == said


def test_a_damaged_segment_is_given_back_once_readers_have_passed_the_damage() -> None:
    disk = SimDisk()
    write(disk, 5)
    spoil(disk, 4)
    recovered(disk)
    kept = []
    for seq in (4, 5):
        retain.retire(
            disk.process("supervisor"), FOLDER, Position(LOG, seq),
            wanted=lambda *_: False, segment_bytes=16 * PAGE, spares_max=0,
        )  # fmt: skip
        kept.append(len(files.segments(disk.process("look"), FOLDER)))
    assert kept == [1, 0]


def test_an_end_that_the_file_system_damaged_is_named() -> None:
    disk = SimDisk().process("supervisor")
    disk.mkdir("/raw")
    write_whole(disk, files.end_path("/raw", 7), b'{"log": 7, "se')
    with pytest.raises(Broken, match=r"/raw/0000000000000007\.end cannot be read") as caught:
        files.read_end(disk, "/raw", 7)
    assert "remove it" in caught.value.help
