"""Vectors: canonical bytes, comparison, join and meet, with writers, Kafka offsets and the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.event.position import (
    KafkaId,
    KafkaPosition,
    Position,
    Vector,
    WriterId,
    kafka_id,
)
from headwater.kit.errors import Broken, Misconfigured

u64 = st.integers(0, 2**64 - 1)
small = st.integers(0, 5)
writers = st.dictionaries(st.builds(WriterId, small), st.builds(Position, small, small))
# One making of each topic, so that offsets can be compared.
offsets = st.dictionaries(st.builds(KafkaId, small), st.builds(KafkaPosition, st.just(7), small))
vectors = st.builds(Vector, writers, small, offsets)


def test_vectors_without_kafka_have_the_bytes_that_they_always_had() -> None:
    assert Vector().encode() == b"\x01"
    old = Vector({WriterId(0xABC0001): Position(3, 4), WriterId(1): Position(0, 9)}, clock=5)
    assert old.encode().hex() == (
        "01"
        "00"
        "0000000000000001"
        "0000000000000000"
        "0000000000000009"
        "00"
        "000000000abc0001"
        "0000000000000003"
        "0000000000000004"
        "02"
        "0000000000000000"
        "0000000000000005"
        "0000000000000000"
    )


def test_a_kafka_offset_stands_between_writers_and_clock() -> None:
    vector = Vector({WriterId(1): Position(2, 3)}, 4, {KafkaId(0xFF): KafkaPosition(0xAA, 17)})
    assert vector.encode().hex() == (
        "01"
        "00"
        "0000000000000001"
        "0000000000000002"
        "0000000000000003"
        "01"
        "00000000000000ff"
        "00000000000000aa"
        "0000000000000011"
        "02"
        "0000000000000000"
        "0000000000000004"
        "0000000000000000"
    )


@given(
    st.dictionaries(st.builds(WriterId, u64), st.builds(Position, u64, u64)),
    u64,
    st.dictionaries(st.builds(KafkaId, u64), st.builds(KafkaPosition, u64, u64)),
)
def test_what_is_encoded_comes_back_and_equal_vectors_are_equal_bytes(
    entries: dict[WriterId, Position], clock: int, kafka: dict[KafkaId, KafkaPosition]
) -> None:
    vector = Vector(entries, clock, kafka)
    assert Vector.decode(vector.encode()) == vector
    other = Vector(dict(reversed(entries.items())), clock, dict(reversed(kafka.items())))
    assert other.encode() == vector.encode()
    assert hash(other) == hash(vector)


@given(vectors, vectors, vectors)
def test_join_and_meet_are_the_least_above_and_the_greatest_below(a: Vector, b: Vector, c: Vector) -> None:
    assert a <= a.join(b) and b <= a.join(b)
    assert a.meet(b) <= a and a.meet(b) <= b
    assert not (a <= c and b <= c) or a.join(b) <= c
    assert not (c <= a and c <= b) or c <= a.meet(b)
    assert (a <= b) == (a.join(b) == b) == (a.meet(b) == a)


def test_offset_zero_is_left_out() -> None:
    assert Vector(kafka={KafkaId(1): KafkaPosition(9, 0)}) == Vector()
    assert Vector(kafka={KafkaId(1): KafkaPosition(9, 0)}).encode() == b"\x01"


def test_offsets_of_a_topic_that_was_made_again_are_not_compared() -> None:
    old, new = (Vector(kafka={KafkaId(1): KafkaPosition(made, 5)}) for made in (10, 11))
    assert not old <= new
    assert not new <= old
    for operation in (old.join, old.meet):
        with pytest.raises(Misconfigured, match="deleted and made again: a and b"):
            operation(new)


def test_topics_and_partitions_have_entries_of_their_own() -> None:
    ids = {kafka_id(topic, partition) for topic in ("raw", "raw2", "é") for partition in (0, 1, 65_535)}
    assert len(ids) == 9
    assert kafka_id("raw", 3) == 0x1DDDC59C28B30003
    with pytest.raises(ValueError, match="expected 0 to 65535, got 65536"):
        kafka_id("raw", 65_536)


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x01\x00", b"\x01\x03" + bytes(24)])
def test_other_bytes_are_not_a_vector(data: bytes) -> None:
    with pytest.raises(Broken):
        Vector.decode(data)
