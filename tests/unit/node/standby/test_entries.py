"""The pieces of what goes to a standby, and bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.errors import Broken
from headwater.node.standby import entries
from headwater.node.standby.entries import Assembler, Base, Delta, Follow, Known, Seen

AT = Vector({WriterId(0xA0000): Position(1, 2)}, clock=3)


@given(st.integers(1, 50), st.binary(max_size=200))
def test_an_entry_is_whole_again_however_it_was_cut(size: int, chunk: bytes) -> None:
    for entry in (
        Seen(chunk),
        Base([(AT.encode(), [1, 2])], {"web": {1: [3]}}, (5, 6), 7),
        Delta(chunk, {}, (1, 2), 3),
    ):
        assembler = Assembler()
        data = entries.encode(entry)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(entries, "PIECE_BYTES", size)
            added = [assembler.add(bytes(piece), last) for piece, last in entries.pieces(data)]
        assert added[-1] == entry and not any(added[:-1]) and not assembler.held


def test_an_entry_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "ENTRY_BYTES_MAX", 100)
    assembler = Assembler()
    assembler.add(bytes(90), False)
    with pytest.raises(Broken, match="more than 100 bytes"):
        assembler.add(bytes(11), False)


@given(st.binary(max_size=60))
@example(b"\x91\xa6\x00\x00\x00\x00\x00\x80")  # a text that is no UTF-8
@example(b"\x91" * 3000)
def test_bytes_that_are_no_entry_are_refused_and_nothing_else_happens(data: bytes) -> None:
    for read in (entries.decode, lambda data: entries.decode_as(data, Follow)):
        try:
            read(data)
        except Broken as refused:
            assert refused.code == "standby_format"


def test_partitions_that_stand_nowhere_are_left_out() -> None:
    told = entries.standing({1: AT, 2: AT, 4: EMPTY}, [1, 2, 3, 4])
    assert entries.vectors(told) == {1: AT, 2: AT, 4: EMPTY} and len(told) == 2
    follow = Follow([1], {0: Known(told, (1, 2))})
    assert entries.decode_as(entries.encode(follow), Follow) == follow
