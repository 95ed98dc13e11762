"""What a membership decides, done: what waits for the disk, what does not, and what operators hear."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.cluster.actions import Keep, Kept, Send
from headwater.cluster.member import Member, counted, own_hosts, read_kept, table_path
from headwater.cluster.messages import Heartbeat, Message, WantTable, encode
from headwater.cluster.settings import ClusterSettings, advertised
from headwater.cluster.table import NO_TABLE, NodeRecord
from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected
from headwater.kit.tasks import Group
from headwater.peer.identity import Identity

A, B = "00000000000a0000", "00000000000b0000"
SECRET = "a-secret-of-the-cluster"
OTHERS = (NO_TABLE.order, [B])


def record(node: str) -> NodeRecord:
    return NodeRecord(node=node, name=node[-5], incarnation=1, member_address="127.0.0.1:1")


class SlowDisk(SystemDisk):
    """Syncs nothing until it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()

    def sync(self, file: int) -> None:
        self.let.wait(10)


def settings(**changed: Any) -> ClusterSettings:
    return ClusterSettings(secret=SECRET, listen="tcp://127.0.0.1:0", **changed)


@asynccontextmanager
async def member_on(folder: Path, disk: SystemDisk) -> AsyncIterator[tuple[Member, list[Message]]]:
    """A member that nobody is connected with, and what it would have sent."""
    (folder / "run").mkdir()
    sent: list[Message] = []
    async with Group("test", lambda *told: None) as group:
        member = Member(
            settings(), record(A), Identity(node=A, incarnation=1, folder=A, cluster="headwater", secret=b"x" * 16),
            None, data=str(folder), partitions=4, own_hosts=set(), disk=disk, clock=SystemClock(),
            counters=Counters(), group=group, happened=lambda activity, name: None,
        )  # fmt: skip
        member.links.send = lambda node, message: bool(sent.append(message)) or True  # type: ignore[method-assign, func-returns-value]
        await member.start()
        try:
            yield member, sent
        finally:
            await member.links.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await SystemClock().sleep(0)


async def test_heartbeats_do_not_wait_for_the_disk_and_what_rests_on_it_does(tmp_path: Path) -> None:
    disk = SlowDisk()
    async with member_on(tmp_path, disk) as (member, sent):
        sent.clear()
        beat = Heartbeat(record=record(A), table=NO_TABLE.order)
        ask = WantTable(than=NO_TABLE.order)
        keep = Keep(Kept(incarnation=9, table=NO_TABLE, records={}))
        member.act([keep, Send((B,), ask), Send((B,), beat)])
        assert sent == [beat]
        assert read_kept(disk, table_path(str(tmp_path))) is None
        disk.let.set()
        await until(lambda: len(sent) == 2)
        assert sent[1] == ask
        kept = read_kept(disk, table_path(str(tmp_path)))
        assert kept is not None and kept.incarnation == 9


async def test_a_node_alone_is_a_cluster_of_one_and_says_so(tmp_path: Path) -> None:
    """M7."""
    async with member_on(tmp_path, SystemDisk()) as (member, _):
        member.core.started_ns -= 10**10
        member.tick()
        await until(lambda: member.page()["viable"])
        told = member.page()
        assert [(one["name"], one["partitions"]) for one in told["nodes"]] == [("a", 4)]
        assert member.held() == [0, 0, 0]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"op": "dance"}, "no such order: 'dance'"),
        ({"op": "drain", "node": "x"}, "no node is called 'x'"),
        ({"op": "evict", "node": "a"}, "a is alive"),
    ],
)
async def test_a_wrong_order_is_refused_in_words(tmp_path: Path, order: dict[str, Any], said: str) -> None:
    async with member_on(tmp_path, SystemDisk()) as (member, _):
        with pytest.raises(Rejected, match=said):
            member.order(order)


async def test_a_node_drains_and_comes_back_by_its_name_or_id(tmp_path: Path) -> None:
    async with member_on(tmp_path, SystemDisk()) as (member, _):
        assert member.order({"op": "drain", "node": "a"})["draining"] is True
        assert member.core.draining
        assert member.order({"op": "drain", "node": A, "back": True})["draining"] is False
        assert not member.core.draining


async def test_s3_a_message_that_cannot_be_understood_is_counted_and_the_next_one_heard(
    tmp_path: Path,
) -> None:
    async with member_on(tmp_path, SystemDisk()) as (member, _):
        heard: list[Message] = []
        member.links.heard = lambda node, message: heard.append(message)
        said = WantTable(than=NO_TABLE.order)
        for data in (b"poison", msgspec.msgpack.encode({"type": "of a newer node"}), encode(said)):
            member.links.take(B, memoryview(data))
        assert heard == [said]
        counted = {name: value for name, _, value in member.links.counters}
        assert counted == {"headwater_cluster_bad_messages_total": 2}


def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "table"
    assert read_kept(SystemDisk(), str(path)) is None
    path.write_bytes(b"nonsense")
    assert read_kept(SystemDisk(), str(path)) is None


@pytest.mark.parametrize(
    ("peers", "nodes"),
    [
        ([], 1),
        (["127.0.0.1:7510", "10.0.0.2:7510", "10.0.0.3:7510"], 3),
        (["10.0.0.2:7510", "10.0.0.3:7510"], 3),
        (["10.0.0.2", "10.0.0.2:7510"], 2),
        (["127.0.0.1:7510", "127.0.0.1:7610"], 2),
        (["localhost:7510", "10.0.0.2:7510", "10.0.0.3:7510"], 3),
        (["no-such-name.invalid:7510", "localhost:7510"], 2),
    ],
)
def test_a_list_of_peers_counts_this_node_once(peers: list[str], nodes: int) -> None:
    assert counted(peers, {"127.0.0.1"}, 7510) == nodes


def test_the_address_that_others_dial_is_this_machine_whoever_passes_it_on() -> None:
    settings = ClusterSettings(secret="sixteen-and-more", advertise="node-a.example.com")
    assert (
        counted(["node-a.example.com:7511", "10.0.0.2:7511", "10.0.0.3:7511"], own_hosts(settings), 7511) == 3
    )


def test_others_are_told_an_address_that_they_can_dial() -> None:
    assert advertised(settings(), "tcp://127.0.0.1:7510", 7510) == "127.0.0.1:7510"
    assert (
        advertised(settings(advertise="node-1.example"), "tcp://0.0.0.0:7510", 7510) == "node-1.example:7510"
    )
    assert advertised(settings(advertise="fd00::2"), "tcp://[::]:7510", 7510) == "[fd00::2]:7510"
    try:
        assert not advertised(settings(), "tcp://0.0.0.0:7510", 7510).startswith("0.0.0.0")
    except HeadwaterError as error:  # this machine has no address but loopback
        assert isinstance(error, Misconfigured) and error.code == "advertise"
