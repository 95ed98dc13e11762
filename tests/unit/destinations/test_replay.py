"""Replays as an operator meets them: begun, told of, failed, resumed, cancelled; never in the way of delivery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.destinations import replay
from headwater.destinations.memory import MemoryDestination, Store
from headwater.destinations.port import Capabilities
from headwater.destinations.worker import status_of
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Vector
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable
from tests.unit.destinations.replay_world import MAIN, NEW, OLD, PARTITIONS, Event, Log, World, vector

FULL = vector(40, 0)


class Filled(World):
    """Forty events, all delivered; a replay of them goes in pieces of five."""

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        super().__init__(
            folder,
            Log([Event(0, n, n, 1000 + n) for n in range(60)]),
            lambda: MemoryDestination(self.store),
        )
        self.raw.sizes = [(5, 5)] * 100
        self.raw.private = Shadow
        Shadow.log = self.log
        self.commit(40, 0)
        self.run()

    def configs(self) -> list[float]:
        return [row["config"] for row in sorted(self.held(), key=lambda row: row["_hw_seq"])]


class Shadow:
    """A private run over the same log, with the old configuration."""

    log: Log

    def __init__(self, partitions: tuple[int, ...], origin: Vector, until: Vector) -> None:
        self.partitions, self.at, self.until = partitions, origin, until
        self.fresh = Log(self.log.events)

    missing = 0

    @property
    def ended(self) -> bool:
        return self.at == self.until

    def advance(self) -> Commit | None:
        at = self.at
        self.at = at.join(vector(min(self.until[next(iter(self.until))].seq, first_of(at) + 7), 0))
        return self.fresh.commit(at, self.at)

    def close(self) -> None:
        pass


def first_of(at: Vector) -> int:
    return next((position.seq for position in at.values()), 0)


@pytest.fixture
def world(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


def begin(world: World, **more: Any) -> dict[str, Any]:
    return world.replay(EMPTY, FULL, **more)


def refused(call: Callable[[], object]) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as raised:
        call()
    return raised.value


def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: Filled) -> None:
    told = begin(world, dry_run=True, rate=10.0)
    assert told == {
        "id": None, "events": 40, "missing": "", "table": "events", "rate": 10.0, "seconds": 4.0
    }  # fmt: skip
    assert world.replays.list() == []
    world.run(20)
    assert set(world.configs()) == {OLD}


def test_a_replay_makes_the_rows_again_and_says_how_far_it_is(world: Filled) -> None:
    assert begin(world, rate=10.0)["id"] == "1"
    world.run(4)
    (told,) = status_of(world.deliverer)["replays"]
    assert told["state"] == "running" and 0 < told["done"] < 40 and told["seconds_left"] > 0
    one = world.finish()
    assert one["state"] == "done" and one["rows"] == one["done"] == one["events"] == 40
    assert set(world.configs()) == {NEW}
    assert "replay_ended" in world.told and status_of(world.deliverer)["replays"] == []
    assert not world.deliverer.destination.positions("cluster/warehouse/replay:1")
    world.check_ledger()


def test_fresh_events_are_delivered_between_pieces(world: Filled) -> None:
    begin(world)
    world.run(3)
    world.commit(60, 0)
    world.run(3)
    assert world.replays.list()[0]["state"] == "running"
    assert len(world.held()) == 60
    world.finish()
    assert world.configs() == [NEW] * 40 + [OLD] * 20


def test_the_rate_spaces_the_pieces(world: Filled) -> None:
    """Forty events at five per second: eight pieces, a second apart, and the ledger between."""
    begin(world, rate=5.0)
    began_ns = world.clock.now_ns
    for _ in range(10_000):
        if world.replays.book.current is None:
            break
        wait_s = world.deliverer.round()
        world.clock.now_ns += int(min(wait_s, 0.02) * 1e9) + 1_000_000
    assert 6.9 < (world.clock.now_ns - began_ns) / 1e9 < 9


def test_a_second_replay_waits_for_the_first(world: Filled) -> None:
    begin(world)
    begin(world)
    world.run(3)
    assert [one["state"] for one in world.replays.list()] == ["running", "waiting"]
    world.finish()
    assert [one["state"] for one in world.replays.list()] == ["done", "done"]


def test_what_a_process_left_is_gone_on_with(world: Filled) -> None:
    begin(world)
    world.run(5)
    done = world.replays.list()[0]["done"]
    world.start()
    assert world.replays.list()[0]["state"] == "running"
    world.run(2)
    (row,) = {r.vector for r in world.deliverer.destination.positions("cluster/warehouse/replay:1").values()}
    assert first_of(Vector.decode(row)) >= done
    assert world.finish()["done"] == 40 and set(world.configs()) == {NEW}


def test_only_what_is_delivered_is_replayed(world: Filled) -> None:
    world.replay(EMPTY, vector(60, 0))
    world.commit(60, 0)
    assert world.finish()["events"] == 40
    assert world.configs() == [NEW] * 40 + [OLD] * 20


def test_where_the_beginning_is_gone_it_says_so_first(world: Filled) -> None:
    world.raw.missing = "the raw log is whole from 10:00 on"
    error = refused(lambda: begin(world))
    assert error.code == "raw_gone" and "--partial" in error.help and "10:00" in error.message
    assert begin(world, dry_run=True)["missing"] == world.raw.missing
    assert begin(world, partial=True)["id"] == "1"
    assert world.finish()["state"] == "done"


def test_trouble_of_the_raw_log_fails_the_replay_and_not_the_destination(world: Filled) -> None:
    def broken() -> None:
        raise OSError(5, "Input/output error")

    world.raw.broken = broken
    begin(world)
    one = world.finish()
    assert one["state"] == "failed" and "Input/output error" in one["reason"]
    assert "replay_failed" in world.told and world.deliverer.trouble is None
    assert refused(lambda: world.replays.resume("2")).code == "replay_id"
    world.raw.broken = lambda: None
    world.replays.resume("1")
    assert world.finish()["state"] == "done" and set(world.configs()) == {NEW}


def test_trouble_of_the_destination_only_holds_the_replay_up(world: Filled) -> None:
    begin(world)
    world.run(3)
    world.store.up = False
    world.run(3)
    assert world.deliverer.trouble is not None and world.replays.list()[0]["state"] == "running"
    assert isinstance(refused(lambda: begin(world)), Unavailable)
    world.store.up = True
    assert world.finish()["state"] == "done" and set(world.configs()) == {NEW}
    world.check_ledger()


def test_a_bug_fails_the_replay_before_it_ends_the_process(
    world: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(replay, "redone", broken)
    begin(world)
    with pytest.raises(KeyError):
        world.run(5)
    world.start()
    world.run(3)
    assert world.replays.list()[0]["state"] == "failed" and world.deliverer.trouble is None


def test_an_older_copy_of_the_destination_ends_the_replay(world: Filled) -> None:
    copy = dict(world.store.positions), {name: list(rows) for name, rows in world.store.rows.items()}
    begin(world)
    world.run(5)
    world.store.positions, world.store.rows = copy
    world.start()
    world.run(3)
    one = world.replays.list()[0]
    assert one["state"] == "failed" and "older copy" in one["reason"]
    assert set(world.configs()) == {OLD} and len(world.held()) == 40
    world.check_ledger()


def test_a_cancelled_replay_leaves_what_it_has_done(world: Filled) -> None:
    begin(world)
    world.run(5)
    told = world.replays.cancel("1")
    assert told["state"] == "cancelled" and told["done"]
    world.run(5)
    assert world.configs() == [NEW] * told["done"] + [OLD] * (40 - told["done"])
    assert refused(lambda: world.replays.cancel("1")).code == "replay_ended"
    world.check_ledger()


def test_a_shadow_table_is_filled_beside_the_main_one_and_dropped(world: Filled) -> None:
    before = dict(world.deliverer.destination.positions(MAIN))
    begin(world, into="try1")
    assert refused(lambda: begin(world, into="try1")).code == "replay_into"
    assert refused(lambda: world.replays.drop("try1")).code == "replay_open"
    one = world.finish()
    assert one["table"] == "events_try1" and one["rows"] == 40
    assert len(world.store.rows["events_try1"]) == 40 and set(world.configs()) == {OLD}
    assert world.deliverer.destination.positions(MAIN) == before
    shadow = world.deliverer.destination.positions("cluster/warehouse/replay:1")
    assert sum(row.total.rows for row in shadow.values()) == 40 and len(shadow) == len(PARTITIONS)
    assert world.replays.drop("try1") == {"dropped": "events_try1"}
    assert "events_try1" not in world.store.rows and world.replays.list() == []
    assert refused(lambda: world.replays.drop("try1")).code == "replay_into"


def test_a_shadow_table_survives_a_restart(world: Filled) -> None:
    begin(world, into="try1")
    world.run(4)
    world.start()
    assert world.finish()["state"] == "done"
    assert sorted(row["_hw_seq"] for row in world.store.rows["events_try1"]) == list(range(40))


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"from_ns": 1, "to_ns": 1}, "replay_times"),
        ({"from_ns": "x", "to_ns": 1}, "replay_times"),
        ({"from_ns": 0, "to_ns": 1, "rate": 0}, "replay_rate"),
        ({"from_ns": 0, "to_ns": 1, "into": "A b"}, "replay_into"),
        ({"from_ns": 0, "to_ns": 1}, "replay_empty"),
        ({"do": "cancel", "id": "9"}, "replay_id"),
        ({"do": "fly"}, "replay_do"),
    ],
)
def test_what_is_asked_wrongly_is_said(world: Filled, asked: dict[str, Any], code: str) -> None:
    error = refused(lambda: replay.answer(world.deliverer, {"do": "start", **asked}))
    assert isinstance(error, Rejected) and error.code == code


def test_a_destination_that_cannot_replay_says_so(world: Filled) -> None:
    world.deliverer.destination.capabilities = Capabilities("T", "exactly once")
    assert refused(lambda: begin(world)).code == "replay_none"
    world.deliverer.replays = None
    assert refused(lambda: replay.answer(world.deliverer, {"do": "list"})).code == "replay_none"


def test_a_file_that_is_none_is_named(world: Filled) -> None:
    (world.folder / "replays.json").write_text("{")
    assert isinstance(refused(world.start), Misconfigured)


def test_letters_that_a_crash_left_are_swept(world: Filled) -> None:
    """The row is there; without its letter going, it could be sent again."""
    begin(world)
    world.run(6)
    done = world.replays.list()[0]["done"]
    world.log.dead.add(world.log.events[done - 1].origin)
    world.start()
    world.run(2)
    assert not world.log.dead
