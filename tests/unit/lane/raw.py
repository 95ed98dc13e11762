"""Raw payloads with records of all kinds, as the door writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from headwater.dialects.registry import DIALECTS
from headwater.event.position import WriterId
from headwater.event.record import (
    DEAD,
    ERASED,
    SINGLE,
    STAMP,
    Head,
    encode_head,
    encode_payload,
)
from headwater.event.slots import NO_SLOT, SLOTS
from headwater.log.block import Header
from headwater.log.read import Block
from headwater.process.gather import Events, Gatherer

HEADS = [
    Head("web", "native", "POST", "/events", headers={"user-agent": f"Browser/{n}"}) for n in range(3)
] + [Head("app", "segment", "POST", "/v1/batch"), Head("web", "native", "POST", "/events", refusal="why|x")]
BATCH, REFUSED = 3, 4
"""Heads of records of several events, and of those that the door refused."""

record = st.one_of(
    st.tuples(st.just("single"), st.integers(0, SLOTS - 1), st.integers(0, 2)),
    st.tuples(st.just("single"), st.integers(0, 7), st.integers(0, 2)),
    st.tuples(st.just("unknown"), st.just(NO_SLOT), st.integers(0, 2)),
    st.tuples(st.just("batch"), st.integers(1, 3), st.just(BATCH)),
    st.tuples(st.just("dead"), st.integers(1, 3), st.just(REFUSED)),
    st.tuples(st.just("erased"), st.integers(0, 7), st.integers(0, 2)),
)
Record = tuple[str, int, int]


def body_of(kind: str, number: int, count: int) -> bytes:
    if kind == "batch":
        calls = ",".join(f'{{"type":"track","event":"e{number}.{n}"}}' for n in range(count))
        return f'{{"batch":[{calls}]}}'.encode()
    return f'{{"event":"e{number}"}}'.encode()


def payload_of(
    records: Sequence[Record], so_far: dict[str, int] | None = None, first: int = 0, body_bytes: int = 0
) -> bytes:
    """A payload with these records; ``so_far``: events per stream of the log, changed. ``body_bytes``: of each single
    event at least."""
    so_far = {} if so_far is None else so_far
    used = sorted({head for _, _, head in records})
    stamps, bodies, refused, here = [], [], [], dict[str, int]()
    for number, (kind, value, head) in enumerate(records):
        flags = {"batch": 0, "dead": DEAD, "erased": SINGLE | ERASED}.get(kind, SINGLE)
        events = value if kind in ("batch", "dead") else 1
        slot = value if kind in ("single", "erased") else NO_SLOT
        wrong = [events - 1] if kind == "batch" and events > 1 else []
        body = b"" if kind == "erased" else body_of(kind, first + number, events)
        if kind == "single" and len(body) < body_bytes:
            body = body[:-1] + b',"pad":"' + b"x" * (body_bytes - len(body)) + b'"}'
        stamps.append(
            STAMP.pack(
                1_000 + first + number,
                bytes([number % 250 + 1] * 16),
                len(body),
                used.index(head),
                events,
                len(wrong),
                slot,
                flags,
                0,
            )
        )
        bodies.append(body)
        refused += wrong
        key = HEADS[head].key_id
        here[key] = here.get(key, 0) + events
        so_far[key] = so_far.get(key, 0) + events
    streams = {key: (count, so_far[key]) for key, count in here.items()}
    heads = [encode_head(HEADS[head]) for head in used]
    return encode_payload(stamps, bodies, heads, refused, streams, sum(here.values()))


def block_of(payload: bytes, events: int, log: int = 9, first_seq: int = 0) -> Block:
    header = Header(0, len(payload), 0, log, first_seq, events, 1, 0, 0)
    return Block(WriterId(7), header, memoryview(payload))


def gathered(blocks: Sequence[Block]) -> list[tuple[Any, ...]]:
    """What processing sees of each event, by position."""
    events = Gatherer(DIALECTS.__getitem__).gather(blocks)
    return [event_of(events, n) for n in range(len(events))]


def event_of(events: Events, n: int) -> tuple[Any, ...]:
    return (
        int(events.writer[n]),
        int(events.log[n]),
        int(events.seq[n]),
        bytes(events.lines[n]),
        int(events.received_ns[n]),
        events.heads[int(events.head[n])],
        bytes(np.asarray(events.address[n]).tobytes()),
        int(events.slot[n]),
        events.refused.get(n),
        bool(events.erased[n]),
        dict(events.damaged),
    )


def is_mine(event: tuple[Any, ...], wanted: Sequence[int], partitions: int) -> bool:
    """Whether an event must be there: of an unknown slot always."""
    slot, erased, refused = event[7], event[9], event[8]
    return slot == NO_SLOT or erased or refused is not None or slot % partitions in wanted
