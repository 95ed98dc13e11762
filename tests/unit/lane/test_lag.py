"""How far owners are behind a home's log, and what is advised about it."""

from headwater.event.position import Position, Vector, WriterId
from headwater.lane.lag import Lags, behind

WRITER = WriterId(0xA0000)
S = 1_000_000_000


def ends(*logs: tuple[int, int]) -> dict[WriterId, list[Position]]:
    return {WRITER: [Position(*one) for one in logs]}


def at(log: int, seq: int) -> Vector:
    return Vector({WRITER: Position(log, seq)})


def test_events_behind_are_counted_over_the_logs_of_a_writer() -> None:
    assert behind(ends((1, 10), (2, 5)), at(1, 7)) == 8
    assert behind(ends((1, 10), (2, 5)), at(2, 5)) == 0
    assert behind(ends((1, 10), (2, 5)), Vector({})) == 15


def test_the_delay_is_that_of_the_oldest_end_of_the_log_that_an_owner_has_not_passed() -> None:
    lags = Lags()
    for second in range(1, 6):
        lags.note(second * S, ends((1, 10 * second)))
    lags.hear("b", at(1, 25), 0.0, 6 * S)
    lag = lags.of("b", 6 * S)
    assert (lag.events, lag.age_s) == (25, 3.0)
    lags.hear("b", at(1, 50), 0.0, 7 * S)
    assert lags.of("b", 7 * S)[:2] == (0, 0.0)


def test_nothing_new_makes_nobody_late() -> None:
    lags = Lags()
    lags.hear("b", at(1, 10), 0.0, S)
    for second in range(1, 100):
        lags.note(second * S, ends((1, 10)))
        lags.hear("b", at(1, 10), 0.0, second * S)
        assert lags.look(second * S) == []


def test_the_delay_of_one_that_is_silent_grows() -> None:
    lags = Lags()
    lags.note(S, ends((1, 10)))
    lags.hear("b", at(1, 5), 0.0, 2 * S)
    assert lags.of("b", 3 * S).age_s == 1.0, "what it said is a second old, which is no delay"
    assert lags.of("b", 30 * S).age_s == 29.0


def test_the_delay_is_known_beyond_the_notes_that_are_kept() -> None:
    lags = Lags()
    lags.hear("b", at(1, 5), 0.0, 0)
    for second in range(1, 2000):
        lags.note(second * S, ends((1, 10 * second)))
        lags.hear("b", at(1, 5), 0.0, second * S)
        lags.of("b", second * S)
    assert lags.of("b", 1999 * S).age_s == 1998.0


def advised(lags: Lags, seconds: range, seq: int, share: float = 0.0) -> list[str]:
    found: list[str] = []
    for second in seconds:
        lags.hear("b", at(1, seq), share, second * S)
        found += [action for _, action, _ in lags.look(second * S)]
    return found


def test_a_slow_owner_is_told_of_when_it_begins_each_30_s_and_when_it_ends() -> None:
    lags = Lags()
    lags.note(S, ends((1, 10)))
    assert advised(lags, range(1, 4), 5) == []
    assert advised(lags, range(4, 30), 5) == ["waiting"]
    assert advised(lags, range(30, 60), 5) == ["waiting"]
    assert advised(lags, range(60, 65), 10) == ["resumed"]
    assert advised(lags, range(65, 200), 10) == []


def test_full_mirrors_are_told_of_too() -> None:
    lags = Lags()
    assert advised(lags, range(1, 3), 0, share=0.9) == ["waiting"]
    assert advised(lags, range(3, 10), 0, share=0.5) == [], "not before it is below a quarter"
    assert advised(lags, range(10, 15), 0, share=0.1) == ["resumed"]


def test_who_owns_nothing_any_more_is_forgotten_and_told_of_where_it_was_slow() -> None:
    lags = Lags()
    lags.note(S, ends((1, 10)))
    advised(lags, range(1, 10), 5)
    lags.hear("c", at(1, 10), 0.0, 9 * S)
    assert lags.keep({"d"}) == ["b"]
    assert not lags.owners
