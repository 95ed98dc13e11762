"""Messages keep their bytes, and wrong ones are refused by field, whatever they are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.cluster import messages
from headwater.cluster.messages import Bye, Drain, Evict, Heartbeat, NewTable, Probe, ProbeAck, WantTable
from headwater.cluster.table import NO_TABLE, NodeRecord
from headwater.kit.errors import Rejected

A = "00000000000a0000"
RECORD = NodeRecord(node=A, name="a", incarnation=1, member_address="h:1")


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(record=RECORD, table=(3, 7, A), misses=[A], leads=True),
        WantTable(than=(0, 0, "")),
        NewTable(table=NO_TABLE, why={A: "left"}),
        Probe(about=A),
        ProbeAck(about=A, silent_ms=None),
        Bye(about=A, incarnation=1, kind="left", reason="x"),
        Drain(),
        Evict(about=A, reason=""),
    ],
)
def test_a_message_comes_back_from_its_bytes(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"type": "surprise"}, "type"),
        ({"type": "probe", "about": "x"}, "about"),
        ({"type": "probe", "about": A, "more": 1}, "more"),
        ({"type": "probe-ack", "about": A, "silent_ms": -1}, "silent_ms"),
        ({"type": "want-table", "than": [1, 2]}, "than"),
        ({"type": "want-table", "than": [1, 2, "x"]}, "leader"),
        ({"type": "evict", "about": A, "reason": "x" * 300}, "reason"),
        ({"type": "bye", "about": A, "incarnation": 1, "kind": "rude", "reason": ""}, "kind"),
        ({"type": "table", "table": {}}, "epoch"),
        ({"type": "heartbeat", "record": {}, "table": [0, 0, ""]}, "record"),
    ],
)
def test_a_wrong_message_is_refused_with_the_name_of_the_field(raw: dict, named: str) -> None:
    with pytest.raises(Rejected, match=named):
        messages.decode(msgspec.msgpack.encode(raw))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    """S3."""
    with pytest.raises(Rejected):
        messages.decode(data)


def test_more_misses_than_there_can_be_members_are_refused() -> None:
    with pytest.raises(ValueError, match="count of misses: expected 0 to 4096"):
        Heartbeat(record=RECORD, table=(0, 0, ""), misses=[A] * 4097)
