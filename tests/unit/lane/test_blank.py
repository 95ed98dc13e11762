"""What is left of a block for some partitions, and what processing makes of it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headwater.event.position import WriterId
from headwater.event.record import COUNTS, ELSEWHERE, decode_payload
from headwater.lane.blank import blank, unwanted
from headwater.ops import find
from headwater.process.gather import Gatherer
from tests.unit.lane.raw import Record, block_of, gathered, is_mine, payload_of, record

PARTITIONS = 8
records_of = st.lists(record, min_size=1, max_size=40)
wanted_of = st.sets(st.integers(0, PARTITIONS - 1)).map(sorted)


def blanked(payload: bytes, wanted: list[int]) -> bytes:
    return b"".join(blank(memoryview(payload), unwanted(wanted, PARTITIONS)).parts)


@given(st.lists(records_of, min_size=1, max_size=4), wanted_of)
def test_processing_sees_the_events_of_the_wanted_partitions_as_they_are_at_home(
    blocks: list[list[Record]], wanted: list[int]
) -> None:
    home, mirrored, seq, so_far = [], [], 5, dict[str, int]()
    for records in blocks:
        payload = payload_of(records, so_far, seq)
        events = COUNTS.unpack_from(payload)[1]
        home.append(block_of(payload, events, first_seq=seq))
        mirrored.append(block_of(blanked(payload, wanted), events, first_seq=seq))
        seq += events
    assert gathered(mirrored) == [e for e in gathered(home) if is_mine(e, wanted, PARTITIONS)]


@given(records_of, wanted_of)
def test_counts_stay_and_one_record_stands_for_a_run(records: list[Record], wanted: list[int]) -> None:
    payload = payload_of(records)
    found = blank(memoryview(payload), unwanted(wanted, PARTITIONS))
    before, after = decode_payload(memoryview(payload)), decode_payload(memoryview(b"".join(found.parts)))
    assert after.streams == before.streams and int(after.first_event[-1]) == int(before.first_event[-1])
    assert found.records == len(after.stamps)
    elsewhere = (after.stamps["flags"] & ELSEWHERE != 0).tolist()
    assert not any(one and another for one, another in pairwise(elsewhere))
    assert all(not after.body(n) for n, one in enumerate(elsewhere) if one)


def test_a_block_that_is_wanted_whole_is_not_copied() -> None:
    view = memoryview(payload_of([("single", 1, 0), ("batch", 2, 3)]))
    assert blank(view, unwanted(range(PARTITIONS), PARTITIONS)).parts == (view,)


def test_nothing_of_an_event_of_others_leaves_the_node() -> None:
    payload = payload_of([("single", 1, 0), ("single", 2, 1), ("single", 2, 1), ("single", 3, 2)])
    left = blanked(payload, [3])
    assert b'"e0"' not in left and b"Browser/0" not in left and b"Browser/1" not in left
    assert b'{"event":"e3"}' in left and b"Browser/2" in left
    assert [bytes(s["address"]) for s in decode_payload(memoryview(left)).stamps] == [b"", bytes([4] * 16)]


def test_damage_behind_a_block_of_others_is_counted_per_stream() -> None:
    so_far: dict[str, int] = {}
    blocks = [
        block_of(blanked(payload_of([("single", 1, 0)], so_far, n), [2]), 1, first_seq=n) for n in range(4)
    ]
    lost = blocks[1].__class__(WriterId(7), blocks[1].header, None)
    for there in ([blocks[0], lost, blocks[2]], [blocks[0], lost, blocks[2], blocks[3]]):
        events = Gatherer(lambda name: None).gather(there)  # type: ignore[arg-type, return-value]
        assert len(events) == 0 and events.damaged == {"web": 1}


def test_explain_finds_nothing_where_events_of_others_were() -> None:
    payload = blanked(payload_of([("single", 1, 0), ("single", 2, 0)]), [2])
    block = block_of(payload, 2)
    decoded = decode_payload(memoryview(payload))
    assert [f.seq for n in range(2) for f in find.events_of(block, decoded, n)] == [1]
