"""The wall clock jumps by a day, while a node runs and between two of its starts: nothing is lost or given back.

Node time is read once at the start and then only slewed (protocol-why.md L10); log ids grow whatever the clock says.
The processes read a clock that the test moves (tests/journeys/jump); DuckDB's own is left alone.

Duplicates are told by receive time: within one start no jump is felt, and after a start with a clock that went back
they are still known. After a start with a clock that is further ahead than `process.dedupe_window_s`, ids count as that
far apart, and what is older than `log.retain_s` by that clock, and safe, is given back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journeys.running import Running, unique

DAY_S = 86_400
TICKS_S = 1.0
"""The supervisor looks at the clock four times in it."""
HOOK = Path(__file__).with_name("jump")


class Moved:
    """A node on a clock that is moved."""

    def __init__(self, node: Running, clock: Path) -> None:
        self.node, self.clock, self.sent = node, clock, 0
        path = node.environment.get("PYTHONPATH", "")
        node.environment |= {"PYTHONPATH": f"{HOOK}:{path}", "HEADWATER_TEST_CLOCK": str(clock)}
        self.set(0)

    def set(self, offset_s: int) -> None:
        later = self.clock.with_suffix(".new")
        later.write_text(str(offset_s))
        later.rename(self.clock)

    def send(self, count: int = 50, *, again: bool = True) -> None:
        """New events, and each id of before once more: a duplicate."""
        numbers = range(0 if again else self.sent, self.sent + count)
        for first in range(0, len(numbers), 100):
            batch = [
                {"type": "track", "event": "E", "messageId": f"m{n}"} for n in numbers[first : first + 100]
            ]
            status, told = self.node.post("/v1/batch", {"batch": batch})
            assert status == 200, told
        self.sent += count

    def check(self) -> list[int]:
        """Everything there once; the receive times of the events, in seconds, in the order in which they were sent."""
        streams = self.node.wait_settled()
        assert all(s["holds"] for s in streams), streams
        rows = self.node.sql(
            "select message_id, cast(epoch(received_at) as bigint) as at from events order by _hw_log, _hw_seq"
        )
        assert unique(row["message_id"] for row in rows) == {f"m{n}" for n in range(self.sent)}
        return [row["at"] for row in rows]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_clock_that_jumps_a_day_is_harmless_while_running_and_between_starts(
    make_node: Callable[..., Running], tmp_path: Path
) -> None:
    """INV-DEST, INV-LOG-3, INV-LOG-5 under jumps of the clock; events keep the times of the node that runs."""
    moved = Moved(make_node(workers=2), tmp_path / "clock")
    moved.set(DAY_S)
    moved.node.start()  # a day ahead
    moved.send()
    for offset in (0, 2 * DAY_S, -DAY_S):
        moved.set(offset)
        time.sleep(TICKS_S)
        moved.send()
    times = moved.check()
    assert max(times) - min(times) < 60, "receive times jumped with the clock"
    assert min(times) > time.time() + DAY_S / 2, "the clock was not moved at all"
    before = segments(moved.node)
    moved.node.kill_all()
    moved.node.start()  # and now two days back
    moved.send()
    assert before <= segments(moved.node), "raw segments were given back because of the clock"
    times = moved.check()
    assert max(times) - min(times) > DAY_S


def segments(node: Running) -> set[str]:
    """Raw segments that hold events."""
    return {path.name for path in (node.data / "raw").glob("*/*-*.seg")}
