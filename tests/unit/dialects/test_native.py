"""`POST /events`: one object, an array, lines."""

import pytest

from headwater.dialects import native
from headwater.dialects.envelope import Limits
from headwater.event.record import Head

HEAD = Head("web", "native", "POST", "/events")
envelope = native.envelope(Limits(events_max=5, event_bytes_max=1000))


@pytest.mark.parametrize(
    ("body", "events", "refused"),
    [
        (b'{"event":"x"}', 1, []),
        (b'{"event":"x"}\n', 1, []),
        (b'\r\n {"event":"x"}', 1, []),
        (b'{\n  "event": "x",\n  "a": {}\n}', 1, []),
        (b'{"a": {}\n, "event": "x"}', 1, []),
        (b'{"event":"x"}\n{"event":"y"}', 2, []),
        (b'{"event":"x"}\r\n{"event":"y"}\r\n', 2, []),
        (b'{"event":"x"}\n\n  \n{"event":"y"}\n', 2, []),
        (b'{"event":"x"}\nnonsense\n{"event":"y"}', 3, [1]),
        (b'nonsense\n{"event":"y"}', 2, [0]),
        (b'{"event":"x"}\n{"event":', 2, [1]),
        (b'{"event":"x"}\n[]\n7', 3, [1, 2]),
        (b'{"event":"x"}\n{"type":"nope"}', 2, [1]),
        (b'[{"event":"x"},{"type":"page"}]', 2, []),
        (b' [{"event":"x"},7,{}]', 3, [1, 2]),
        (b'[{"event":"x"}', 1, [0]),
        (b"[]", 1, [0]),
        (b"", 1, [0]),
        (b"\n", 1, [0]),
        (b'{"event":\n"x"', 1, [0]),
        (b'"x"', 1, [0]),
        (b'{"event":"x"}\n' * 6, 1, [0]),
        (b'{"event":"x"}\n{"event":"\xff"}', 1, [0]),
        (b'{"event":"x"}\n{"event":"%s"}' % (b"y" * 1000), 2, [1]),
    ],
)
def test_events_are_counted_and_bad_ones_refused_alone(body: bytes, events: int, refused: list[int]) -> None:
    verdict = envelope(body, "/events")
    assert (verdict.events, [one.index for one in verdict.refused]) == (events, refused)
    split = native.split(HEAD, verdict.body, events)
    assert len(split.items) == events
    assert split.failure is None or len(refused) == events
    assert all(b"\n" not in item and b"\r" not in item for item in split.items) or split.failure


def test_type_is_track_when_none_is_said() -> None:
    assert native.default_type(HEAD) == "track"


def test_single_object_is_single_however_it_is_laid_out() -> None:
    assert envelope(b'{\n"event":"x"}\n', "/events").single
    assert not envelope(b'[{"event":"x"}]', "/events").single


def test_key_of_the_first_good_event_counts() -> None:
    assert envelope(b'7\n{"event":"x","writeKey":"k"}', "/events").write_key == "k"
