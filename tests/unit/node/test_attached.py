from headwater.event.position import ZERO, Position
from headwater.node.roles.process import attached_to

AT = {"slow": Position(1, 2), "slower": ZERO, "fast": Position(1, 9)}


def held(safe: Position) -> int:
    """Ten bytes for each number from there to the tenth."""
    return 10 * (10 - safe.seq)


def test_everybody_counts_as_long_as_there_is_room() -> None:
    assert attached_to(AT, held, 100) == AT


def test_the_slowest_is_left_out_first_and_the_furthest_never() -> None:
    assert set(attached_to(AT, held, 90)) == {"slow", "fast"}
    assert set(attached_to(AT, held, 50)) == {"fast"}
    assert set(attached_to(AT, held, 0)) == {"fast"}
    assert attached_to({}, held, 0) == {}


def test_the_furthest_is_left_out_too_when_the_log_need_not_be_kept_for_it() -> None:
    assert attached_to(AT, held, 9, {"fast"}) == {}
    assert set(attached_to(AT, held, 9, {"slow", "slower"})) == {"fast"}
    assert set(attached_to(AT, held, 10, {"fast"})) == {"fast"}
