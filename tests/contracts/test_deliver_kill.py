"""kill -9 of a deliver process at any moment: every event of the recorded chain exactly once (INV-DST-1)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from headwater.destinations.remember import State
from headwater.event.position import WriterId
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.rng import SystemRng
from headwater.kit.threads import inline
from headwater.log.block import Secret
from headwater.log.ready import ReadyWriter
from headwater.log.write import BlockWriter
from tests.chains import commit

SECRET = Secret(0x5EC2E7)

CHILD = str(Path(__file__).with_name("deliver_child.py"))
PARTITIONS = (0, 1, 2, 3)
COMMITS, ROWS = 40, 300


def record(folder: Path) -> None:
    """A ready log of COMMITS commits."""
    os.makedirs(folder / "ready" / "0")
    blocks = BlockWriter(
        SystemDisk(),
        SystemClock(),
        str(folder / "ready" / "0"),
        WriterId(0),
        77,
        start=1,
        offset_ns=0,
        segment_bytes=32 * 1024 * 1024,
        submit=inline,
        secret=SECRET,
    )
    writer = ReadyWriter(blocks)
    for number in range(COMMITS):
        writer.append(commit(number * ROWS, ROWS, PARTITIONS))
    blocks.close()


def child(folder: Path, *how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, CHILD, str(folder), *how], stdout=subprocess.PIPE)


def test_inv_dst_1_killed_anywhere_each_event_is_there_once(tmp_path: Path) -> None:
    """INV-DST-1: before COMMIT, after it, and at random moments between."""
    record(tmp_path)
    for how in (("before", "1"), ("after", "1"), ("before", "2"), ("after", "2")):
        with child(tmp_path, *how) as process:
            assert process.wait(30) == -9
    rng, killed = SystemRng(), 0
    for _ in range(4):
        with child(tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            try:
                process.wait(rng.below(120) / 1000)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
    with child(tmp_path) as process:
        assert process.wait(30) == 0
    assert_exact(tmp_path)
    print(f"killed at random {killed} times of 4")


def assert_exact(folder: Path) -> None:
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as base:
        seen = base.execute(
            "select count(*), count(distinct message_id), max(_hw_seq) from events"
        ).fetchall()
        held = base.execute('select sum("rows"), sum("out"), sum(dead) from headwater_positions').fetchall()
        by_partition = base.execute(
            "select count(*) from (select _hw_partition p, count(*) n from events group by 1) "
            'join headwater_positions on p = partition and n = "rows"'
        ).fetchall()
    total = COMMITS * ROWS
    assert seen == [(total, total, total - 1)]
    assert held == [(total, total, 0)]
    assert by_partition == [(len(PARTITIONS),)]


@pytest.mark.slow
def test_what_is_remembered_is_never_newer_than_the_truth(tmp_path: Path) -> None:
    import msgspec

    record(tmp_path)
    with child(tmp_path, "before", "3") as process:
        assert process.wait(30) == -9
    state = msgspec.json.decode((tmp_path / "state.json").read_bytes(), type=State)
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as base:
        (held,) = base.execute("select min(vector) from headwater_positions").fetchone() or (b"",)
    assert all(bytes.fromhex(text) <= bytes(held) for text in state.vectors)
