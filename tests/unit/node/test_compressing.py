"""What the upkeep process chooses, and what it tells."""

from __future__ import annotations

from headwater.event.position import EMPTY, Position, Vector
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.simulate.view import ProcessDisk
from headwater.log import compress, files
from headwater.log.compress import Outcome
from headwater.node.compressing import Compressing
from tests.unit.log.test_compress import FOLDER, LOG, PAGE, SECRET, SEGMENT_BYTES, WRITER, change, ended_log

COMMITTED = Vector({WRITER: Position(LOG, 200)})
OLD_NS = 1 << 62


def made(view: ProcessDisk, after_s: float = 600) -> Compressing:
    return Compressing(view, "/raw", SECRET, after_s=after_s, level=1, segment_bytes=SEGMENT_BYTES)


def finish(one: Compressing) -> Outcome:
    while True:
        if (done := one.step()) is not None:
            return done[1]


def test_the_oldest_committed_segment_is_next_and_the_report_tells_what_was_saved() -> None:
    view = ended_log(SimDisk(), [PAGE] * 100)
    one = made(view)
    assert not one.look(EMPTY, OLD_NS)
    firsts = []
    while one.look(COMMITTED, OLD_NS):
        assert one.current is not None
        firsts.append(one.current.first)
        assert finish(one) is Outcome.COMPRESSED
    assert firsts == [s.first for s in files.segments(view, FOLDER)]
    assert one.measure().segments == 0  # they wait for the supervisor
    compress.switch(view, FOLDER)
    told = one.measure()
    assert told.segments == 4 and told.plain_bytes == 100 * 2 * PAGE
    assert 0 < told.disk_bytes < told.plain_bytes / 10
    view.unlink(files.segments(view, FOLDER)[0].path)
    assert one.measure().segments == 3


def test_what_is_young_waits() -> None:
    view = ended_log(SimDisk(), [PAGE] * 100)
    written_ns = 10**12  # as SimClock begins
    assert not made(view).look(COMMITTED, written_ns + 599 * 10**9)
    assert made(view).look(COMMITTED, written_ns + 602 * 10**9)


def test_a_damaged_segment_is_passed_over_and_holds_up_no_other() -> None:
    view = ended_log(SimDisk(), [PAGE] * 100)
    segments = files.segments(view, FOLDER)
    change(view, segments[1].path, 3 * PAGE + 10, b"!")
    one = made(view)
    outcomes = []
    while one.look(COMMITTED, OLD_NS):
        outcomes.append(finish(one))
    assert outcomes == [Outcome.COMPRESSED, Outcome.DAMAGED, Outcome.COMPRESSED, Outcome.COMPRESSED]


def test_nothing_is_begun_where_the_disk_is_nearly_full() -> None:
    disk = SimDisk()
    view = ended_log(disk, [PAGE] * 100)
    disk.capacity_bytes = disk.used_bytes() + 2 * SEGMENT_BYTES - PAGE
    assert not made(view).look(COMMITTED, OLD_NS)
    disk.capacity_bytes += PAGE
    assert made(view).look(COMMITTED, OLD_NS)


def test_a_segment_that_is_retired_meanwhile_is_let_go_and_drafts_of_the_dead_are_removed() -> None:
    view = ended_log(SimDisk(), [PAGE] * 100)
    one = made(view)
    assert one.look(COMMITTED, OLD_NS)
    view.unlink(files.segments(view, FOLDER)[0].path)
    assert one.step() is None and one.steps is None
    view.close(view.open(f"{FOLDER}/{files.DRAFT}", write=True, create=True))
    made(view)
    assert not view.exists(f"{FOLDER}/{files.DRAFT}")
