"""Records are signed, and say where a reader that comes late may begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.event.position import Position, WriterId
from headwater.kit.errors import Rejected
from headwater.lane.kafka.record import MAC_BYTES, Writing, decode, encode, key_of
from headwater.lane.wire import BlockHead, Outgoing, Packer

KEY = key_of(b"the secret of all nodes", "main")
WRITER = 0xA10000


def head(first: int, size: int, writer: int = WRITER) -> BlockHead:
    return BlockHead(writer, 1, first, 10, 10, 1, first, first, size)


def frames(sizes: list[int], body_bytes: int) -> list[Outgoing]:
    """Blocks of ten events, with payloads of these sizes."""
    packer = Packer("kafka", body_bytes)
    for number, size in enumerate(sizes):
        packer.add(head(10 * number, size), [bytes([number % 256]) * size])
    packer.flush()
    return packer.frames


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 40))
def test_each_record_says_what_of_it_belongs_to_a_block_before_and_where_whole_blocks_end(
    sizes: list[int], body_bytes: int
) -> None:
    sent = [decode(one, KEY) for one in Writing(7, 3, KEY, {}).records(frames(sizes, body_bytes))]
    assert [(one.home, one.session, one.number) for one in sent] == [(7, 3, n + 1) for n in range(len(sent))]
    before = 0  # bytes of the records before
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    for one in sent:
        whole = sum(end <= before for end in ends)
        assert one.begins.get(WRITER, Position(1, 0)) == Position(1, 10 * whole)
        begun = next(
            (end for start, end in zip([0, *ends], ends, strict=False) if start < before < end), before
        )
        assert one.skip == min(begun - before, len(one.body))
        before += len(one.body)


def test_a_record_is_what_it_was() -> None:
    begins = {WriterId(WRITER): Position(1, 5)}
    (told,) = Writing(7, 3, KEY, begins).records(frames([30], 100))
    record = decode(told, KEY)
    assert record.begins == begins
    assert encode(record, KEY) == told
    assert bytes(record.frame.body) == bytes(30)


@pytest.mark.parametrize(
    "key", [key_of(b"another secret", "main"), key_of(b"the secret of all nodes", "other")]
)
def test_a_record_of_another_cluster_is_refused(key: bytes) -> None:
    (told,) = Writing(7, 3, key, {}).records(frames([30], 100))
    with pytest.raises(Rejected, match="no node of this cluster"):
        decode(told, KEY)


@pytest.mark.parametrize("at", [0, 1, MAC_BYTES, MAC_BYTES + 1, -1])
def test_a_record_that_was_changed_is_refused(at: int) -> None:
    (told,) = Writing(7, 3, KEY, {}).records(frames([30], 100))
    spoilt = bytearray(told)
    spoilt[at] ^= 1
    with pytest.raises(Rejected):
        decode(bytes(spoilt), KEY)
    with pytest.raises(Rejected):
        decode(told[: max(at, 0)], KEY)
