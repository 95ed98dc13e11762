"""Bytes that changed in the data folder of a stopped node: real files, the real recovery, the real processor.

What can be read is a row once, as it was sent; what cannot be read is named damage, and counted; nothing else is there.
The named matrix of issue 4, and bytes changed at random anywhere in the segments.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.event.position import WriterId, writer_id
from headwater.log import files, inspect, recover
from headwater.log.block import PAGE_BYTES, read_header
from headwater.log.write import BlockWriter
from tests.unit.process.test_worker import FOLDER_ID, SECRET, Node, drain

LOGS, BLOCKS = 3, 20
SEEDS = int(os.environ.get("HEADWATER_SPOILT", "12"))


class Small(Node):
    """A node whose raw logs have small segments: every log has several."""

    def block_writer(self, folder: str, writer: int) -> BlockWriter:
        if "/raw/" not in folder:
            return super().block_writer(folder, writer)
        return BlockWriter(
            self.disk, self.clock, folder, WriterId(writer), next(self.log_ids), start=1, offset_ns=self.offset_ns,
            segment_bytes=8 * PAGE_BYTES, submit=lambda work: work(), secret=SECRET, ahead=2,
        )  # fmt: skip


class Spoilt:
    """A node that was stopped, and what each of its events was."""

    def __init__(self, path: Path, original: Spoilt | None = None) -> None:
        path.mkdir(exist_ok=True)
        self.node = Small(path)
        self.raw = f"{path}/raw/{writer_id(FOLDER_ID, 0):016x}"
        self.sent: dict[str, str] = {}
        if original is not None:
            shutil.copytree(original.raw, self.raw)
            self.sent = original.sent

    def fill(self) -> Spoilt:
        """Three logs of acknowledged events."""
        rng = random.Random(7)
        for log in range(LOGS):
            for number in range(BLOCKS):
                names = [f"m{log}.{number}.{n}" for n in range(rng.randrange(1, 4))]
                told = {name: "x" * rng.randrange(2000) for name in names}
                self.sent |= told
                self.node.accept(
                    *({"event": "E", "messageId": m, "properties": {"p": p}} for m, p in told.items())
                )
            self.node.collectors.pop(0).close()
        return self

    def segments(self) -> list[Path]:
        """Those that hold blocks."""
        return [Path(segment.path) for segment in files.segments(self.node.disk, self.raw)]

    def end(self, log: int) -> files.End:
        """What was decided about a log."""
        end = files.read_end(self.node.disk, self.raw, log)
        assert end is not None
        return end

    def start(self) -> tuple[dict[str, str], int]:
        """What a start makes of it: rows, and how many events are called damaged."""
        recover.recover_all(self.node.disk, self.raw, SECRET, recover.raw_streams)
        drain(self.node.processor())
        rows = list(self.node.rows())
        assert len({row["message_id"] for row in rows}) == len(rows), "doubled"
        counters = self.node.reports.get(0, {"counters": {}})["counters"]
        damaged = sum(counts["damaged"] for counts in counters.values())
        return {row["message_id"]: row["p"] for row in rows}, damaged

    def check(self, *, given_back: bool = False) -> int:
        """Right rows only, and the rest is counted, and named; how many are lost. ``given_back``: to those who look at
        the files alone, what is gone looks like a segment that was given back; the ledger alone tells."""
        rows, damaged = self.start()
        wrong = {message for message, p in rows.items() if self.sent.get(message) != p}
        assert not wrong, f"rows that nobody sent: {wrong}"
        assert len(rows) + damaged == len(self.sent), (len(rows), damaged, len(self.sent))
        told = [p for log in inspect.inspect(self.node.disk, self.raw, SECRET) for p in log.problems]
        told += [str(d) for log in files.logs(self.node.disk, self.raw) for d in self.end(log).damaged]
        assert bool(told) == (bool(damaged) and not given_back), told
        return damaged


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    """Made once; each test spoils a copy."""
    return Spoilt(tmp_path_factory.mktemp("original")).fill()


@pytest.fixture
def folder(original: Spoilt, tmp_path: Path) -> Spoilt:
    return Spoilt(tmp_path / "copy", original)


def blocks(path: Path) -> list[int]:
    """Where blocks begin in a segment."""
    data, log = path.read_bytes(), int(path.name[:16], 16)
    return [at for at in range(0, len(data), PAGE_BYTES) if read_header(memoryview(data)[at:], log)]


def change(path: Path, at: int, bits: int = 0xFF) -> None:
    """One byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


def untouched(folder: Spoilt) -> None:
    pass


def zero_length(folder: Spoilt) -> None:
    folder.segments()[-1].write_bytes(b"")


def first_of_zero_length(folder: Spoilt) -> None:
    folder.segments()[0].write_bytes(b"")


def torn_tail(folder: Spoilt) -> None:
    last = folder.segments()[-1]
    last.write_bytes(last.read_bytes()[: blocks(last)[-1] + 100])


def bad_hash_in_the_middle(folder: Spoilt) -> None:
    segment = folder.segments()[1]
    change(segment, blocks(segment)[1] + 70)


def bad_header_in_the_middle(folder: Spoilt) -> None:
    segment = folder.segments()[1]
    change(segment, blocks(segment)[1])


def missing_segment(folder: Spoilt) -> None:
    folder.segments()[1].unlink()


def missing_first_segment(folder: Spoilt) -> None:
    folder.segments()[0].unlink()


def missing_log(folder: Spoilt) -> None:
    """The segments of the second log; its watermark is there."""
    second = files.logs(folder.node.disk, folder.raw)[1]
    for segment in folder.segments():
        if int(segment.name[:16], 16) == second:
            segment.unlink()


def stale_recycled_tail(folder: Spoilt) -> None:
    """Behind the last block stand whole blocks of an older log, as in a file that was used before."""
    last, old = folder.segments()[-1], folder.segments()[0].read_bytes()
    end = blocks(last)[-1] + PAGE_BYTES
    last.write_bytes(last.read_bytes()[:end] + old)


MATRIX: dict[Callable[[Spoilt], None], bool] = {
    untouched: False, zero_length: True, first_of_zero_length: True, torn_tail: True, bad_hash_in_the_middle: True,
    bad_header_in_the_middle: True, missing_segment: True, missing_first_segment: True, missing_log: True,
    stale_recycled_tail: False,
}  # fmt: skip
"""What is done, and whether events are lost by it."""


@pytest.mark.parametrize("spoil", MATRIX, ids=lambda spoil: spoil.__name__)
def test_what_can_be_read_is_there_once_and_the_rest_is_counted_as_damage(
    folder: Spoilt, spoil: Callable[[Spoilt], None]
) -> None:
    """INV-LOG-1, INV-LOG-3."""
    spoil(folder)
    assert bool(folder.check(given_back=spoil is missing_first_segment)) is MATRIX[spoil]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_bytes_changed_anywhere_never_make_a_wrong_or_doubled_row(folder: Spoilt, seed: int) -> None:
    """INV-LOG-1, INV-LOG-3: one to five bytes, anywhere in the segments."""
    rng = random.Random(f"spoilt {seed}")
    for _ in range(rng.randrange(1, 6)):
        segment = rng.choice(folder.segments())
        change(segment, rng.randrange(segment.stat().st_size), 1 << rng.randrange(8))
    folder.check()


def test_a_torn_tail_that_nobody_was_promised_is_no_damage(folder: Spoilt) -> None:
    """INV-LOG-1: the watermark stands below it, so no answer was given."""
    last = folder.segments()[-1]
    data = memoryview(last.read_bytes())[blocks(last)[-1] :]
    header = read_header(data, int(last.name[:16], 16))
    assert header is not None
    cell = folder.node.disk.cell(files.watermark_path(folder.raw, header.log_id), write=True)
    cell.set(header.first_seq)
    cell.close()
    torn_tail(folder)
    rows, damaged = folder.start()
    assert (len(folder.sent) - len(rows), damaged) == (header.events, 0)


def test_a_position_beyond_the_log_goes_on_with_the_next_log(folder: Spoilt) -> None:
    """INV-LOG-5: all was processed, then the raw log became an older copy; what comes later is processed too."""
    before, _ = folder.start()
    assert len(before) == len(folder.sent)
    newest = files.logs(folder.node.disk, folder.raw)[-1]
    for file in Path(folder.raw).glob(f"{newest:016x}*"):
        file.unlink()
    folder.node.log_ids = iter(range(1000, 2000))  # the supervisor begins behind all that it can see
    folder.node.accept({"event": "E", "messageId": "later", "properties": {"p": "y"}})
    drain(folder.node.processor())
    rows = [row["message_id"] for row in folder.node.rows()]
    assert sorted(rows) == sorted([*before, "later"])
