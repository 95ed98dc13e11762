import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.kit.errors import Rejected
from headwater.peer import batch, frames
from headwater.peer.batch import Batch, pack, unpack


@given(st.lists(st.binary(max_size=50)))
def test_events_of_a_batch_come_out_as_they_went_in(events):
    assert unpack(memoryview(pack(events))) == events


def test_the_bytes_are_as_written_down():
    assert pack([b"ab", b""]) == bytes.fromhex("00000002 00000002 00000000 6162")


@given(st.binary(max_size=60))
def test_any_other_bytes_are_events_or_refused(body):
    try:
        events = unpack(memoryview(body))
    except Rejected as error:
        assert error.code == "bad_batch"
    else:
        assert pack([bytes(event) for event in events]) == body


def test_a_count_that_lies_takes_no_memory():
    with pytest.raises(Rejected):
        unpack(memoryview(b"\xff\xff\xff\xff" + bytes(100)))


def test_a_batch_is_full_at_512_events_or_256_kib():
    """C8."""
    many, large = Batch(), Batch()
    assert [many.add(b"x") for _ in range(512)].index(True) == 511
    assert [large.add(bytes(1024)) for _ in range(256)].index(True) == 255
    assert len(unpack(memoryview(many.take()))) == 512
    assert (many.size_bytes, many.events) == (0, [])


def test_an_event_that_no_frame_can_hold_is_refused_and_the_largest_one_is_not():
    """C8."""
    waiting = Batch()
    with pytest.raises(Rejected) as caught:
        waiting.add(bytes(batch.EVENT_BYTES_MAX + 1))
    assert caught.value.code == "too_large"
    assert not waiting.events
    assert waiting.add(bytes(batch.EVENT_BYTES_MAX))
    assert not waiting.fits(b"x")
    frames.head(frames.Kind.DATA, bytes(1000), len(waiting.take()))
