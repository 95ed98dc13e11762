"""Tables are totally ordered, keep their bytes, and what is wrong with one is said by field (INV-CLU-1)."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from headwater.cluster import table
from headwater.cluster.table import NO_TABLE, Member, NodeRecord, Table, View
from headwater.kit.errors import Rejected

A, B, C = (f"{number:012x}0000" for number in (0xA, 0xB, 0xC))


def made(**changes: Any) -> Table:
    fields: dict[str, Any] = {
        "epoch": 3,
        "leader": A,
        "leader_incarnation": 7,
        "cluster_id": A,
        "members": {A: Member(incarnation=7), B: Member(incarnation=9, zone="z", weight=2)},
        "owner": [A, B, B, ""],
        "standby": [B, A, "", ""],
    }
    return Table(**(fields | changes))


def test_a_table_comes_back_from_its_bytes() -> None:
    """M1."""
    assert table.decode(table.encode(made()), Table) == made()
    assert table.decode(table.encode(NO_TABLE), Table) == NO_TABLE


def test_inv_clu_1_tables_are_totally_ordered() -> None:
    rising = [
        NO_TABLE,
        made(epoch=2, leader=B, leader_incarnation=99),
        made(),
        made(leader_incarnation=8),
        made(leader_incarnation=8, leader=B),
        made(epoch=4, leader_incarnation=1),
    ]
    for one, other in itertools.combinations(rising, 2):
        assert table.greater(other, one) and not table.greater(one, other)
    assert not table.greater(made(), made())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", -1),
        ("epoch", "3"),
        ("leader", "nobody"),
        ("leader", A[:-1] + "1"),
        ("leader", A.upper()),
        ("cluster_id", ""),
        ("members", {}),
        ("members", {"x": {"incarnation": 1}}),
        ("incarnation", {A: {"incarnation": -1}, B: {"incarnation": 1}}),
        ("weight", {A: {"incarnation": 1, "weight": 101}, B: {"incarnation": 1}}),
        ("state", {A: {"incarnation": 1, "state": "gone"}, B: {"incarnation": 1}}),
        ("owner", [A, B, B]),
        ("owner", [A, B, C, ""]),
        ("owner", []),
        ("standby", [B, A]),
        ("standby", [A, A, "", ""]),
        ("standby", [B, C, "", ""]),
        ("surprise", 1),
    ],
)
def test_a_wrong_table_is_refused_with_the_name_of_the_field(field: str, value: object) -> None:
    """M1."""
    raw = msgspec.msgpack.decode(table.encode(made()))
    raw["members" if field in ("incarnation", "weight", "state") else field] = value
    with pytest.raises(Rejected, match=field):
        table.decode(msgspec.msgpack.encode(raw), Table)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", table.encode(made())[:-3], b"\x81\xa5epoch\x01"])
def test_bytes_that_are_no_table_are_refused(data: bytes) -> None:
    with pytest.raises(Rejected, match="not a table"):
        table.decode(data, Table)


def test_epoch_0_decides_nothing() -> None:
    with pytest.raises(ValueError, match="owner: expected none in epoch 0"):
        Table(**(msgspec.structs.asdict(NO_TABLE) | {"owner": [""]}))


def test_a_table_tells_what_a_node_has() -> None:
    assert made().owned_by(B) == [1, 2]
    assert made().standby_of(A) == [1]


def test_a_record_with_a_long_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name: expected at most 255"):
        NodeRecord(node=A, name="x" * 256, incarnation=1, member_address="")


def test_a_view_comes_back_from_its_bytes() -> None:
    record = NodeRecord(node=A, name="a", incarnation=7, member_address="127.0.0.1:1")
    view = View(me=A, cluster_id=A, viable=True, why="", table=made(), alive={A: record})
    assert table.decode(table.encode(view), View) == view
