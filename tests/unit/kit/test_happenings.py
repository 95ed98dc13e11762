import io
import json
from typing import ClassVar

from headwater.kit.clock import SystemClock
from headwater.kit.counters import SERIES_MAX, Counters
from headwater.kit.happenings import LINES_MAX, WINDOW_S, Happening, Happenings, Level


class DoorOpened(Happening):
    """A door."""

    level: ClassVar[Level] = "warning"
    door: str
    token: str = ""


class HandClock(SystemClock):
    now = 10**9

    def boot_ns(self):
        return self.now

    def wall_ns(self):
        return 1_700_000_000_123_000_000


def made(**options):
    out, counters, clock = io.StringIO(), Counters(), HandClock()
    return Happenings("node", clock, counters, out, **options), out, counters, clock


def lines(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_one_emit_is_one_line_and_one_count():
    happenings, out, counters, _ = made()
    happenings.emit(DoorOpened(door="front\n"))
    assert lines(out) == [
        {"time": "2023-11-14T22:13:20.123Z", "level": "warning", "happening": "door_opened", "by": "node",
         "door": "front\n", "token": "…"}
    ]  # fmt: skip
    assert list(counters) == [("headwater_happenings_total", {"happening": "door_opened"}, 1)]


def test_a_flood_is_cut_and_the_next_line_says_how_much_was_left_out():
    happenings, out, counters, clock = made()
    for _ in range(100):
        happenings.emit(DoorOpened(door="x"))
    assert len(lines(out)) == LINES_MAX
    clock.now += int(WINDOW_S * 1e9)
    happenings.emit(DoorOpened(door="x"))
    assert lines(out)[-1]["left_out"] == 100 - LINES_MAX
    assert next(iter(counters))[2] == 101


def test_lines_below_the_level_are_only_counted():
    happenings, out, counters, _ = made(least="error")
    happenings.emit(DoorOpened(door="x"))
    assert (out.getvalue(), next(iter(counters))[2]) == ("", 1)


def test_a_closed_log_stops_nothing():
    happenings, out, _, _ = made()
    out.close()
    happenings.emit(DoorOpened(door="x"))


def test_label_sets_are_bounded():
    counters = Counters()
    for n in range(SERIES_MAX + 50):
        counters.add("headwater_x_total", key=str(n))
    found = {labels["key"]: value for _, labels, value in counters}
    assert (len(found), found["other"]) == (SERIES_MAX + 1, 50)
