"""Compressed segments: the same blocks, named damage where the file is damaged, and no step that loses anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.event.position import Position, WriterId
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.simulate.view import Dead, ProcessDisk
from headwater.kit.threads import inline
from headwater.log import compress, compressed, files, inspect, recover, retain
from headwater.log.block import Secret
from headwater.log.compress import Outcome
from headwater.log.read import LogReader
from headwater.log.segment import open_segment
from headwater.log.write import BlockWriter

SECRET = Secret(0x5EC2E7)
FOLDER = "/raw/0"
WRITER = WriterId(0)
LOG = 9
PAGE = 4096
SEGMENT_BYTES = 64 * PAGE
EVERYTHING = (1 << 62, 1 << 62)


def payload(number: int, length: int) -> bytes:
    return b"%d %s" % (number, b"abcdefgh" * (length // 8))


def ended_log(disk: SimDisk, lengths: list[int]) -> ProcessDisk:
    """A log of blocks with payloads of these lengths, ended; the view that reads it."""
    view = disk.process("set-up")
    view.mkdir(FOLDER)
    for folder in ("/", "/raw"):
        view.sync_dir(folder)
    writer = BlockWriter(
        disk.process("worker"), SimClock(Time()), FOLDER, WRITER, LOG,
        start=1, offset_ns=0, segment_bytes=SEGMENT_BYTES, submit=inline, secret=SECRET,
    )  # fmt: skip
    for number, length in enumerate(lengths):
        writer.write(payload(number, length), records=1, events=2)
    writer.close()
    recover.recover(view, FOLDER, LOG, SECRET, recover.no_streams)
    view.sync_dir(FOLDER)
    return view


def make(view: ProcessDisk, segment: files.Segment, after: Position, level: int = 1) -> Outcome:
    steps = compress.compress(view, FOLDER, segment, after, SECRET, level)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            outcome: Outcome = done.value
            return outcome


def compress_all(view: ProcessDisk) -> list[Outcome]:
    made = [make(view, *one) for one in compress.candidates(view, FOLDER, Position(LOG, 1 << 40))]
    compress.switch(view, FOLDER)
    return made


def read(view: ProcessDisk, bytes_max: int = 1 << 20) -> list[tuple[int, int, bytes | None]]:
    reader = LogReader(view, FOLDER, WRITER, secret=SECRET)
    found: list[tuple[int, int, bytes | None]] = []
    while True:
        reader.fill(bytes_max)
        taken = reader.take(EVERYTHING)
        if not taken:
            reader.close()
            return found
        found += [
            (b.header.first_seq, b.header.next_seq, None if b.payload is None else bytes(b.payload))
            for b in taken
        ]


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks lie across several frames, and segments have many."""
    monkeypatch.setattr(compressed, "FRAME_BYTES", 5 * PAGE)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(8, 12 * PAGE), min_size=1, max_size=40), st.integers(1, 1 << 18))
def test_both_forms_hold_the_same_blocks(lengths: list[int], bytes_max: int) -> None:
    view = ended_log(SimDisk(), lengths)
    plain = read(view)
    assert [p for _, _, p in plain] == [payload(n, length) for n, length in enumerate(lengths)]
    segments = {s.first: open_segment(view, s, SECRET) for s in files.segments(view, FOLDER)}
    outcomes = compress_all(view)
    assert set(outcomes) <= {Outcome.COMPRESSED, Outcome.NOT_SMALLER}
    changed = files.segments(view, FOLDER)
    assert sum(s.compressed for s in changed) == outcomes.count(Outcome.COMPRESSED)
    assert read(view, bytes_max) == plain
    for segment in changed:
        file, old = open_segment(view, segment, SECRET), segments[segment.first]
        for offset in range(0, file.size(), 3 * PAGE + 17):
            length = min(4 * PAGE + 5, file.size() - offset)
            assert file.pread(length, offset) == old.pread(length, offset)
        assert file.pread(10, file.size()) == old.pread(10, old.size()) == b""
    assert not any(state.problems for state in inspect.inspect(view, FOLDER, SECRET))
    assert compress_all(view) == [Outcome.NOT_SMALLER] * outcomes.count(Outcome.NOT_SMALLER)


def one_compressed(disk: SimDisk) -> tuple[ProcessDisk, files.Segment]:
    """A log of twenty blocks of two pages in one compressed segment, that is eight frames."""
    view = ended_log(disk, [PAGE] * 20)
    assert compress_all(view) == [Outcome.COMPRESSED]
    (segment,) = files.segments(view, FOLDER)
    assert segment.compressed
    return view, segment


def change(view: ProcessDisk, path: str, at: int, data: bytes) -> None:
    file = view.open(path, write=True)
    view.pwrite(file, data, at)
    view.close(file)


def test_any_one_damaged_byte_costs_one_frame_at_most_and_is_named() -> None:
    disk = SimDisk()
    view, segment = one_compressed(disk)
    whole = disk.copy()
    right = read(view)
    size = len(whole[segment.path] or b"")
    file = compressed.CompressedFile(view, view.open(segment.path), LOG, 0, SECRET)
    frames, offsets = len(file.index.frames), file.offsets
    assert frames == 8
    for at in range(0, size, 3):
        disk.restore(whole)
        view = disk.process("look")
        byte = (whole[segment.path] or b"")[at] ^ 0x10
        change(view, segment.path, at, bytes([byte]))
        found = read(view)
        lost = [(first, following) for first, following, p in found if p is None]
        kept = [one for one in found if one[2] is not None]
        assert all(one in right for one in kept)
        (state,) = inspect.inspect(view, FOLDER, SECRET)
        if offsets[0] <= at < offsets[-1]:
            assert (
                len(lost) == 1 and lost[0][1] - lost[0][0] <= 2 * 4
            )  # a frame of 5 pages touches 4 blocks at most
            assert any(f"events {lost[0][0]} to {lost[0][1] - 1}" in p for p in state.problems)
        else:
            assert found == right
            assert len(state.problems) == 1 and "index" in state.problems[0]


@pytest.mark.parametrize("length", [0, 1, 47, 48, 100, 300, 600])
def test_a_compressed_file_that_was_cut_off_gives_what_is_left_and_never_anything_else(length: int) -> None:
    disk = SimDisk()
    view, segment = one_compressed(disk)
    right = read(view)
    file = view.open(segment.path, write=True)
    view.truncate(file, length)
    found = read(view)
    assert all(one in right for one in found if one[2] is not None)
    assert any(one[2] is None for one in found)
    (state,) = inspect.inspect(view, FOLDER, SECRET)
    assert any("missing or damaged" in p or "are damaged" in p for p in state.problems)


def test_the_file_of_another_segment_is_not_believed() -> None:
    view, segment = one_compressed(SimDisk())
    other = files.Segment(LOG + 1, 0, f"{FOLDER}/{LOG + 1:016x}-{0:016x}.segz")
    view.rename(segment.path, other.path)
    assert open_segment(view, other, SECRET).size() == 0
    assert open_segment(view, other, Secret(1)).size() == 0


def test_a_damaged_segment_is_left_as_it_is() -> None:
    view = ended_log(SimDisk(), [PAGE] * 20)
    (segment,) = files.segments(view, FOLDER)
    change(view, segment.path, 3 * PAGE + 10, b"!")
    before = read(view)
    assert compress_all(view) == [Outcome.DAMAGED]
    assert files.segments(view, FOLDER) == [segment]
    assert read(view) == before and any(p is None for _, _, p in before)


def test_nothing_that_is_written_or_not_committed_is_compressed() -> None:
    view = ended_log(SimDisk(), [PAGE] * 100)
    firsts = [s.first for s in files.segments(view, FOLDER)]
    assert len(firsts) == 4

    def chosen(below: Position) -> list[int]:
        return [segment.first for segment, _ in compress.candidates(view, FOLDER, below)]

    assert chosen(Position(LOG, firsts[2])) == firsts[:2]
    assert chosen(Position(LOG, firsts[2] - 1)) == firsts[:1]
    assert chosen(Position(LOG, 200)) == firsts
    view.unlink(files.end_path(FOLDER, LOG))  # the log is open: its last segment grows
    assert chosen(Position(LOG, 200)) == firsts[:3]


def test_a_crash_of_the_machine_at_any_call_leaves_one_whole_form() -> None:
    """INV-LOG-1: upkeep, switch and crash, at each call of the disk, with several outcomes of each crash."""
    calls = 0
    for call in range(1, 200):
        for seed in range(3):
            disk = SimDisk(seed)
            view = ended_log(disk, [PAGE] * 20)
            right = read(view)
            working = disk.process("upkeep and supervisor")
            working.die_at(call)
            try:
                compress_all(working)
            except Dead:
                calls = call
            disk.crash()
            after = disk.process("after")
            assert read(after) == right, (call, seed)
            compress.remove_draft(after, FOLDER)
            compress.switch(after, FOLDER)
            compress_all(after)
            assert read(after) == right, (call, seed)
            kinds = sorted(n.partition(".")[2] for n in after.listdir(FOLDER) if n.startswith(f"{LOG:016x}"))
            assert kinds == ["end", "segz", "wm"], (call, seed)
        if calls < call:
            break
    assert calls > 40


def test_the_plain_form_goes_only_when_the_name_of_the_compressed_one_is_durable() -> None:
    """INV-LOG-1: names of one folder survive a crash in any combination until it is synced."""
    for seed in range(40):
        disk = SimDisk(seed)
        view = ended_log(disk, [PAGE] * 20)
        right = read(view)
        assert compress_all(view) == [Outcome.COMPRESSED]
        disk.crash()
        assert read(disk.process("after")) == right, seed


def test_a_reader_goes_on_in_the_file_that_it_has_open_while_the_segment_changes_form() -> None:
    disk = SimDisk()
    view = ended_log(disk, [PAGE] * 60)
    right = read(view)
    reader = LogReader(view, FOLDER, WRITER, secret=SECRET)
    reader.fill(1)
    assert compress_all(view) == [Outcome.COMPRESSED] * 2
    assert files.spares(view, FOLDER) == []  # recycled, it would be written again under the reader
    found = []
    while True:
        found += [
            (b.header.first_seq, b.header.next_seq, bytes(b.payload or b"")) for b in reader.take(EVERYTHING)
        ]
        reader.fill(1)
        if not reader.ahead:
            break
    assert found == right


def test_a_segment_that_changes_form_between_listing_and_opening_is_found() -> None:
    view = ended_log(SimDisk(), [PAGE] * 20)
    (segment,) = files.segments(view, FOLDER)
    compress_all(view)
    assert not view.exists(segment.path)
    assert open_segment(view, segment, SECRET).size() == 20 * 2 * PAGE
    assert open_segment(view, segment, SECRET).pread(4, 0) == b"HWB1"


def test_what_was_compressed_of_a_segment_that_is_retired_by_now_never_comes_back() -> None:
    view = ended_log(SimDisk(), [PAGE] * 20)
    ((segment, after),) = compress.candidates(view, FOLDER, Position(LOG, 40))
    assert make(view, segment, after) is Outcome.COMPRESSED
    assert compress.candidates(view, FOLDER, Position(LOG, 40)) == []  # it waits for its place
    view.unlink(segment.path)
    assert compress.switch(view, FOLDER) == 0
    assert not [n for n in view.listdir(FOLDER) if ".segz" in n]


@pytest.mark.parametrize("begun", [0, 1, 3, 5, 7, 9])
def test_a_segment_that_is_recycled_while_it_is_compressed_is_not_called_damaged(begun: int) -> None:
    view = ended_log(SimDisk(), [PAGE] * 20)
    ((segment, after),) = compress.candidates(view, FOLDER, Position(LOG, 40))
    steps = compress.compress(view, FOLDER, segment, after, SECRET, 1)
    for _ in range(begun):
        next(steps)
    spare = f"{FOLDER}/spare-{0:016d}.seg"
    view.rename(segment.path, spare)
    for offset in range(0, 40 * PAGE, PAGE):
        change(view, spare, offset, b"!")
    with pytest.raises(FileNotFoundError):
        list(steps)
    assert files.segments(view, FOLDER) == []


def test_no_room_and_giving_up_leave_no_draft() -> None:
    disk = SimDisk()
    view = ended_log(disk, [PAGE] * 20)
    ((segment, after),) = compress.candidates(view, FOLDER, Position(LOG, 40))
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(OSError, match="No space"):
        make(view, segment, after)
    disk.capacity_bytes = 1 << 30
    steps = compress.compress(view, FOLDER, segment, after, SECRET, 1)
    while not view.exists(f"{FOLDER}/{files.DRAFT}"):
        next(steps)
    steps.close()
    assert view.listdir(FOLDER) == [
        segment.path.rpartition("/")[2],
        f"{LOG:016x}.end",
        f"{LOG:016x}.wm",
        "next.seg",
    ]


def test_a_compressed_segment_is_retired_for_what_it_takes_and_never_recycled() -> None:
    view, segment = one_compressed(SimDisk())
    size = view.size(view.open(segment.path))
    spare_bytes = SEGMENT_BYTES
    assert retain.folder_bytes(view, FOLDER) == size + spare_bytes
    asked = []

    def wanted(one: files.Segment, disk_bytes: int) -> bool:
        asked.append(disk_bytes)
        return False

    done = retain.retire(
        view, FOLDER, Position(LOG, 40), wanted=wanted, segment_bytes=size, spares_max=4
    )  # fmt: skip
    assert asked == [size]
    assert done == (1, size)
    assert files.segments(view, FOLDER) == [] and files.spares(view, FOLDER) == []


def test_retention_keeps_all_that_is_newer_than_what_it_keeps() -> None:
    view = ended_log(SimDisk(), [PAGE] * 100)
    firsts = [s.first for s in files.segments(view, FOLDER)]
    retain.retire(
        view, FOLDER, Position(LOG, 200),
        wanted=lambda one, _: one.first == firsts[1], segment_bytes=SEGMENT_BYTES, spares_max=0,
    )  # fmt: skip
    assert [s.first for s in files.segments(view, FOLDER)] == firsts[1:]


def test_a_log_without_an_end_whose_earlier_segments_are_compressed_is_recovered() -> None:
    """Its last segment holds no block, so what it counted is read from the compressed one before."""
    view = ended_log(SimDisk(), [PAGE] * 60)
    known = files.read_end(view, FOLDER, LOG)
    compress_all(view)
    view.unlink(files.end_path(FOLDER, LOG))
    assert recover.recover(view, FOLDER, LOG, SECRET, recover.no_streams) == known
    assert all(s.compressed for s in files.segments(view, FOLDER))
    assert not any(state.problems for state in inspect.inspect(view, FOLDER, SECRET))
    view.unlink(files.end_path(FOLDER, LOG))
    last = f"{FOLDER}/{LOG:016x}-{120:016x}.seg"
    change_file = view.open(last, write=True, create=True)
    view.truncate(change_file, SEGMENT_BYTES)
    seen: list[bytes] = []

    def streams_of(payload: memoryview) -> dict[str, int]:
        seen.append(bytes(payload)[:3])
        return {"web": 120}

    end = recover.recover(view, FOLDER, LOG, SECRET, streams_of)
    assert (end.seq, end.streams, end.damaged) == (120, {"web": 120}, [])
    assert seen == [b"59 "]
