"""A standby follows an owner over connections that break (docs/decisions/0007-cluster.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from headwater.kit.errors import Unavailable
from headwater.kit.simulate import loop
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.node.standby import entries, keeper
from headwater.node.standby.keeper import followed
from headwater.peer.frames import Kind
from headwater.process import state
from headwater.process.takeover import standby_folder
from tests.unit.node.standby.nodes import OWNER, RESPONSE_S, STANDBY, THIRD, Nodes, view
from tests.unit.node.standby.world import DATA, FOLLOWED, PARTITIONS, Processor, check, process

FOLDER = standby_folder("", OWNER, 0)
EVERYONE = tuple(range(PARTITIONS))


class Story:
    """Both nodes on simulated disks, in simulated time."""

    def __init__(self) -> None:
        self.time = Time()
        self.clock = SimClock(self.time)
        self.owner, self.other = SimDisk(1), SimDisk(2)
        process(self.other, "start").mkdir("/state")
        self.processor = Processor(self.owner)
        self.nodes = Nodes(self.clock, process(self.owner, "lane"), process(self.other, "standby"))

    def tell(self, body: Callable[[Story], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.nodes:
                await body(self)

        loop.run(main(), time=self.time)

    async def commit(self, count: int = 1) -> None:
        for _ in range(count):
            self.processor.commit(EVERYONE, 3, 2)
        await self.clock.sleep(RESPONSE_S)

    def is_kept(self) -> None:
        """The standby has all of it on its disk, and the owner knows."""
        expected = {p: self.processor.fold.vectors[p] for p in FOLLOWED}
        disk = process(self.other, "reader")
        kept = state.load(disk, FOLDER)
        assert kept.vectors == expected
        check(disk, FOLDER, kept)
        assert self.nodes.server.synced(STANDBY) == expected
        assert self.nodes.keeper.standing[OWNER] == expected
        assert not self.nodes.keeper.trouble and not self.nodes.errors

    def told(self, connection: int = -1) -> list[str]:
        """The kinds of the entries that went over a connection."""
        held = entries.Assembler()
        added = [
            held.add(body, header["last"])
            for header, body in self.nodes.connections[connection].sent
            if "last" in header
        ]
        return [type(entry).__name__ for entry in added if entry is not None]


def test_each_commit_is_on_the_standby_within_a_second_or_two() -> None:
    async def body(story: Story) -> None:
        await story.clock.sleep(RESPONSE_S)
        await story.commit()
        story.is_kept()
        await story.commit(5)
        story.is_kept()
        assert story.told() == ["Delta"] * 6

    Story().tell(body)


def test_a_standby_that_comes_late_gets_a_base_first_and_its_rest_commit_by_commit() -> None:
    story = Story()
    for _ in range(3):
        story.processor.commit(EVERYONE, 3, 3)
    story.processor.save()
    story.processor.commit(EVERYONE, 3, 3)

    async def body(story: Story) -> None:
        await story.clock.sleep(RESPONSE_S)
        story.is_kept()
        assert story.told() == ["Seen"] * 3 + ["Base", "Delta"]

    story.tell(body)


def test_a_partition_is_whole_when_all_of_it_is_on_the_standbys_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """H6: the leader moves it then; what was only taken in would be dropped by the very move."""
    monkeypatch.setattr(keeper, "SAVE_INTERVAL_S", 1000.0)
    story = Story()
    for _ in range(3):
        story.processor.commit(EVERYONE, 3, 3)
    story.processor.save()

    async def body(story: Story) -> None:
        await story.clock.sleep(RESPONSE_S)
        assert story.nodes.keeper.whole == {OWNER: frozenset(FOLLOWED)}
        story.is_kept()

    story.tell(body)


def test_the_owner_knows_what_a_standby_has_taken_before_it_is_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What deliverers wait for (backed.py); nobody is waited for who is not connected."""
    monkeypatch.setattr(keeper, "SAVE_INTERVAL_S", 1000.0)

    async def body(story: Story) -> None:
        await story.clock.sleep(RESPONSE_S)
        story.processor.commit(EVERYONE, 3, 2)
        await story.clock.sleep(0.5)
        assert story.nodes.server.taken == {STANDBY: {0: story.processor.fold.ready}}
        await story.nodes.connections[-1].close()
        await story.clock.sleep(0.5)
        assert story.nodes.server.taken == {}

    Story().tell(body)


def test_a_partition_that_its_owner_has_not_on_its_disk_yet_is_not_whole() -> None:
    async def body(story: Story) -> None:
        del story.processor.fold.vectors[1]
        story.processor.save()
        await story.clock.sleep(RESPONSE_S)
        assert story.nodes.keeper.whole == {OWNER: frozenset(FOLLOWED) - {1}}

    story = Story()
    story.processor.commit(EVERYONE, 3, 3)
    story.tell(body)


def test_a_standby_of_protocol_1_is_told_nothing_that_it_does_not_know() -> None:
    """It would take a mark for a spoilt entry, and whatever is called whole for all that it asked for."""
    story = Story()
    story.nodes.protocol = 1
    story.processor.commit(EVERYONE, 3, 3)
    del story.processor.fold.vectors[1]
    story.processor.save()

    async def body(story: Story) -> None:
        await story.clock.sleep(RESPONSE_S)
        heads = [head for head, _ in story.nodes.connections[-1].sent]
        assert heads and all("n" in head for head in heads)
        assert story.nodes.server.taken == {}, "nobody waits for what it cannot say"

    story.tell(body)


def test_an_owner_of_protocol_1_has_told_everything_when_it_says_whole() -> None:
    async def body(story: Story) -> None:
        await story.clock.sleep(RESPONSE_S)
        story.nodes.keeper.whole.clear()
        await story.nodes.connections[-1].send(Kind.STATE, {"whole": 1})
        await story.clock.sleep(0.5)
        assert story.nodes.keeper.whole == {OWNER: frozenset(FOLLOWED)}
        assert not story.nodes.keeper.trouble

    story = Story()
    story.nodes.protocol = 1
    story.processor.commit(EVERYONE, 3, 3)
    story.tell(body)


def test_after_a_break_it_goes_on_from_what_it_holds() -> None:
    async def body(story: Story) -> None:
        await story.commit(2)
        await story.nodes.connections[-1].close()
        await story.commit(2)
        await story.clock.sleep(RESPONSE_S)
        story.is_kept()
        assert len(story.nodes.connections) == 2 and story.told() == ["Delta"] * 2

    Story().tell(body)


def test_after_a_break_over_which_the_ready_log_was_given_back_it_gets_a_base() -> None:
    def refuse() -> None:
        raise Unavailable("10.0.0.1:7512 does not answer", code="connect_failed")

    async def body(story: Story) -> None:
        await story.commit(2)
        story.nodes.refuse = refuse
        await story.nodes.connections[-1].close()
        await story.commit(20)
        assert story.nodes.keeper.trouble == {OWNER: "10.0.0.1:7512 does not answer"}
        story.processor.save()
        story.processor.give_back()
        story.nodes.refuse = lambda: None
        await story.commit()
        await story.clock.sleep(RESPONSE_S)
        story.is_kept()
        assert "Base" in story.told()

    Story().tell(body)


def test_a_large_entry_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "PIECE_BYTES", 64)

    async def body(story: Story) -> None:
        await story.commit(3)
        story.is_kept()
        sent = story.nodes.connections[-1].sent
        assert len(sent) > 10 and all(len(data) <= 64 for _, data in sent)

    Story().tell(body)


def test_files_that_cannot_be_read_now_are_told_and_tried_again() -> None:
    async def body(story: Story) -> None:
        await story.commit()
        disk = process(story.owner, "rot")
        disk.rename(f"{DATA}/state/0/fold", f"{DATA}/aside")
        file = disk.open(f"{DATA}/state/0/fold", write=True, create=True)
        disk.pwrite(file, b"rot", 0)
        await story.commit()
        (said,) = story.nodes.errors
        assert "state/0/fold cannot be read" in said and story.nodes.server.trouble.keys() == {0}
        disk.rename(f"{DATA}/aside", f"{DATA}/state/0/fold")
        await story.commit()
        story.nodes.errors.clear()
        story.is_kept()
        assert not story.nodes.server.trouble and len(story.nodes.connections) == 1

    Story().tell(body)


def test_nobody_is_followed_for_whom_this_node_is_not_the_standby() -> None:
    async def body(story: Story) -> None:
        await story.commit()
        story.nodes.views.now = view(standby=THIRD)
        await story.clock.sleep(RESPONSE_S)
        assert story.nodes.connections[-1].closed and story.nodes.keeper.standing == {}
        await story.commit()
        assert len(story.nodes.connections) == 1
        assert process(story.other, "reader").exists(FOLDER)

    Story().tell(body)


def test_who_is_followed_stands_in_the_view() -> None:
    assert followed(view()) == {OWNER: (f"{OWNER}:2", FOLLOWED)}
    assert followed(view(alive=(STANDBY,))) == {}
    assert followed(view(owner=STANDBY, standby=THIRD)) == {}
