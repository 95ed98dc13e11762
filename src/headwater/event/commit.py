"""Commits: one entry of the ready log, the only thing that processing makes durable (protocol.md §4).

A commit moves all its partitions from one vector to another and carries everything that follows from the events
between: row sets, dead letters, facts, the state delta, the counters. It is encoded as::

    magic HWC1 | header length u32 | header (msgpack) | sections, one after the other

and cut into blocks of the ready log; the last block carries END_OF_COMMIT (log/ready.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headwater.event.position import Vector
from headwater.kit.errors import Broken

MAGIC = b"HWC1"
COUNTERS = ("in", "out", "duplicate", "dead", "filtered", "erased", "damaged")
"""Per (partition, stream), cumulative, in events (protocol.md §13)."""
RESTARTED = "\0restarted"
"""No stream (a key's id has no such sign), but a mark among the counters, which goes wherever they go: a partition that
has it came without any state, so what was dropped of it before is not in its counters (protocol.md §7)."""


class CommitHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a commit says about itself."""

    partitions: list[int]
    origin: bytes
    """Vector before (`from`), encoded."""
    target: bytes
    """Vector after (`to`), encoded."""
    config_epoch: int
    events: int
    """Events between origin and target that belong to these partitions."""
    sections: dict[str, int]
    """Name to length in bytes, in the order in which they follow."""
    changes: dict[str, dict[int, list[int]]]
    """Stream → partition → what this commit adds to COUNTERS; only partitions with a change."""


class Commit(msgspec.Struct, frozen=True):
    """A decoded commit. Sections:

    ``rows:<layout>`` Arrow IPC stream of the row set · ``dead`` Arrow IPC stream of dead letters ·
    ``facts`` (identity; empty for now) · ``ids`` the delta of ids seen (process/dedupe.py).
    """

    partitions: tuple[int, ...]
    origin: Vector
    target: Vector
    config_epoch: int
    events: int
    changes: dict[str, dict[int, list[int]]]
    sections: Mapping[str, memoryview]


encoder = msgspec.msgpack.Encoder()
decoder = msgspec.msgpack.Decoder(CommitHeader)


def encode(commit: Commit) -> list[bytes | memoryview]:
    """The bytes of a commit, as parts to be written one after the other."""
    header = encoder.encode(
        CommitHeader(
            list(commit.partitions),
            commit.origin.encode(),
            commit.target.encode(),
            commit.config_epoch,
            commit.events,
            {name: len(data) for name, data in commit.sections.items()},
            commit.changes,
        )
    )
    return [MAGIC, len(header).to_bytes(4, "little"), header, *commit.sections.values()]


def decode(data: memoryview) -> Commit:
    """From the joined payloads of a commit's blocks; sections are views."""
    if bytes(data[:4]) != MAGIC:
        raise Broken("a ready entry does not begin as a commit", code="commit_format")
    length = int.from_bytes(data[4:8], "little")
    header = decoder.decode(data[8 : 8 + length])
    at = 8 + length
    sections: dict[str, memoryview] = {}
    for name, size in header.sections.items():
        sections[name] = data[at : at + size]
        at += size
    if at != len(data):
        raise Broken("the sections of a commit do not fill it", code="commit_format")
    return Commit(
        tuple(header.partitions),
        Vector.decode(header.origin),
        Vector.decode(header.target),
        header.config_epoch,
        header.events,
        header.changes,
        sections,
    )
