import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.kit.errors import Rejected
from headwater.peer import frames
from headwater.peer.frames import HEAD, Assembler, Kind
from tests.unit.peer.nodes import assemble

MIB = 1024 * 1024
KINDS = st.integers(0, 255)
SAYABLE = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    max_size=4,
)
MESSAGES = st.lists(st.tuples(KINDS, SAYABLE, st.binary(max_size=200)), max_size=6)


def encoded(messages):
    return b"".join(frames.encode(*message) for message in messages)


def test_the_bytes_of_a_frame_are_as_written_down():
    """C9."""
    assert frames.encode(Kind.DATA, {"a": 1}, b"bo", b"dy") == bytes.fromhex(
        "0000000e01040000000481a16101626f6479"
    )


@given(MESSAGES, st.integers(1, 400))
def test_what_was_sent_is_received_however_it_is_cut(messages, piece):
    assert assemble(Assembler(chunk_bytes=64), encoded(messages), piece) == messages


def test_a_split_at_every_byte_changes_nothing():
    messages = [(Kind.HELLO, {"n": 1}, b""), (Kind.DATA, {}, b"x" * 40), (Kind.ACK, {"to": 2}, b"")]
    data = encoded(messages)
    for at in range(1, len(data)):
        assembler = Assembler()
        assert assemble(assembler, data[:at]) + assemble(assembler, data[at:]) == messages


def test_a_body_stays_as_it_was_while_later_frames_are_read():
    assembler, kept = Assembler(), []
    for n in range(50):
        data = frames.encode(Kind.DATA, {}, bytes([n]) * 9000)
        while data:
            space = assembler.buffer()
            count = min(len(space), len(data))
            space[:count] = data[:count]
            data = data[count:]
            assembler.filled(count)
            while (frame := assembler.next()) is not None:
                kept.append(frame.body)
    assert [set(body) for body in kept] == [{n} for n in range(50)]
    assert all(body.readonly for body in kept)


def test_the_largest_frame_passes_and_a_larger_one_is_not_sent():
    body = bytes(frames.FRAME_BYTES_MAX - HEAD.size - 1)
    [(_, _, received)] = assemble(Assembler(), frames.encode(Kind.DATA, {}, body))
    assert len(received) == len(body)
    with pytest.raises(Rejected, match="split it") as caught:
        frames.encode(Kind.DATA, {}, body, b"x")
    assert caught.value.code == "too_large"
    with pytest.raises(Rejected):
        frames.encode(Kind.DATA, {"a": bytes(frames.HEADER_BYTES_MAX)})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (HEAD.pack(frames.FRAME_BYTES_MAX - 3, 1, 4, 1), "bad_frame"),
        (HEAD.pack(0xFFFFFFFF, 1, 4, 1), "bad_frame"),
        (HEAD.pack(0, 1, 4, 1), "bad_frame"),
        (HEAD.pack(6, 1, 4, 0), "bad_frame"),
        (HEAD.pack(20, 1, 4, 0), "bad_frame"),
        (HEAD.pack(20, 1, 4, 15), "bad_frame"),
        (HEAD.pack(3 * MIB, 1, 4, 2 * MIB), "bad_frame"),
        (HEAD.pack(20, 2, 4, 1), "foreign_version"),
        (b"GET / HTTP/1.1\r\n", "bad_frame"),
        (bytes.fromhex("16030100c5010000"), "tls"),
        (bytes.fromhex("15030300020228"), "tls"),
    ],
)
def test_what_is_no_frame_is_refused_before_anything_is_kept_for_it(data, code):
    """C9."""
    assembler = Assembler()
    with pytest.raises(Rejected) as caught:
        assemble(assembler, data)
    assert caught.value.code == code
    assert len(assembler.view) == frames.CHUNK_BYTES_MIN


def test_a_kind_that_nobody_knows_is_handed_on():
    """C9."""
    assert assemble(Assembler(), frames.encode(251, {"new": True}, b"?")) == [(251, {"new": True}, b"?")]
    assert frames.kind_name(251) == "kind 251"
    assert frames.kind_name(4) == "DATA"


@given(st.binary(max_size=5000), st.integers(1, 5000))
def test_random_bytes_never_crash_and_never_take_much(data, piece):
    """C9."""
    assembler = Assembler(4096, 4096)
    try:
        assemble(assembler, data, piece)
    except Rejected:
        pass
    assert len(assembler.view) <= 4096


@given(MESSAGES, st.data())
def test_frames_with_changed_bytes_never_crash(messages, drawn):
    """C9."""
    data = bytearray(encoded(messages))
    for _ in range(drawn.draw(st.integers(1, 4))):
        if data:
            data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.integers(0, 255))
    try:
        assemble(Assembler(), data)
    except Rejected:
        pass


@pytest.mark.parametrize(
    "header",
    [
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a" + b"\x91" * 100_000,
        b"\x81\xa1a\xa2\xff\xff",
        b"\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12,
        b"\x81\xa1a\x81\x81\x01\x01\x01",
        b"\x90",
        b"\x80\x80",
    ],
)
def test_a_header_that_lies_is_refused_and_takes_nothing(header):
    """C9."""
    tracemalloc.start()
    try:
        with pytest.raises(Rejected) as caught:
            frames.decode_header(memoryview(header))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "bad_header"
    assert peak < MIB


def test_reads_grow_with_the_load_and_shrink_again():
    assembler = Assembler()
    data = frames.encode(Kind.DATA, {}, bytes(MIB))
    assemble(assembler, data * 20)
    assert len(assembler.view) > 8 * frames.CHUNK_BYTES_MIN
    assemble(assembler, frames.encode(Kind.PING, {}) * 400_000, 500)
    assert len(assembler.view) == frames.CHUNK_BYTES_MIN


def test_numbers_of_kinds_are_for_ever():
    assert [(kind.name, kind.value) for kind in Kind][:13] == [
        ("HELLO", 1), ("WELCOME", 2), ("REFUSED", 3), ("DATA", 4), ("ACK", 5), ("NACK", 6), ("CREDIT", 7),
        ("PING", 8), ("PONG", 9), ("TABLE", 10), ("PROBE", 11), ("DRAIN", 12), ("BYE", 13),
    ]  # fmt: skip
