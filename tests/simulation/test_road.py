"""The road of one node keeps its promises under any order of steps and faults (protocol.md §0, §4, §5, §13, §15.1).

A Hypothesis machine draws the history; ``road_world`` carries it out with the real parts, ``road_oracle`` says what is
owed. Each variant of ``road_broken`` breaks one part, and the same machine must find it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.simulation import road_broken as broken
from tests.simulation.log_oracle import Violation
from tests.simulation.road_world import FAULTS, DuckDbShelf, Parts, Place, World

FOLDERS = "/dev/shm" if os.path.isdir("/dev/shm") else None
WRITER = st.sampled_from((0, 1, 2))
BACKS = st.lists(st.sampled_from((0, 0, 0, 1, 2, 3, 5, 8, 13)), min_size=1, max_size=4)
BLOCK = st.tuples(WRITER, BACKS)
ANY = st.integers(0, 5)
ROUNDS = st.integers(1, 9)
STARTS = ("beginning", "beginning", "now")

STEPS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "flow": (st.lists(BLOCK, min_size=2, max_size=6), ROUNDS),
    "accept": (st.lists(st.tuples(WRITER, BACKS, st.booleans()), min_size=2, max_size=6),),
    "carry": (st.integers(1, 4), ANY, ROUNDS),
    "deliver": (ANY, ANY, ROUNDS),
    "fail_step": (BLOCK, ANY, ANY, ROUNDS, st.sampled_from(FAULTS)),
    "kill_processor": (ANY, st.sampled_from(("killed before", "killed after"))),
    "restart_deliverer": (ANY, ANY, st.booleans()),
    "restart_node": (st.integers(1, 3),),
    "restart_collector": (WRITER,),
    "up_or_down": (ANY, st.sampled_from((True, True, False))),
    "copy": (ANY,),
    "restore": (ANY, ANY, st.integers(0, 3)),
    "go_back": (ANY, st.lists(BLOCK, min_size=3, max_size=6), BLOCK),
    "overtake": (WRITER, WRITER),
    "leave_behind": (ANY, st.lists(BLOCK, min_size=3, max_size=6)),
    "add": (
        st.sampled_from(("beginning", "beginning", "now")),
        st.sampled_from(("refill", "pause")),
        st.sampled_from(("refuse", "write_off")),
    ),
    "operate": (ANY, st.sampled_from(("here", "now", "beginning")), ROUNDS),
    "write_off": (ANY,),
    "compress": (),
    "tell": (),
    "retire_ready": (st.sampled_from((0, 0, 40_000, 1 << 30)), st.booleans()),
    "retire_raw": (st.sampled_from((False, False, True)), st.booleans()),
    "wait": (st.sampled_from((1, 4, 8, 20, 45)),),
}
"""Name → what is drawn for it."""
Often = dict[str, int]
ANYTHING: Often = dict.fromkeys(STEPS, 1) | {
    "flow": 4, "accept": 3, "carry": 4, "deliver": 3, "fail_step": 3, "kill_processor": 2, "restart_deliverer": 2,
    "copy": 2, "restore": 2, "retire_ready": 3, "retire_raw": 2, "wait": 2,
}  # fmt: skip
OFF_CHAIN: Often = {
    "flow": 3,
    "overtake": 4,
    "accept": 2,
    "carry": 2,
    "go_back": 5,
    "retire_ready": 1,
    "restart_node": 1,
}
"""Destinations go back, and the ready log does not hold what they lack."""
TROUBLE: Often = {"flow": 3, "fail_step": 5, "restart_deliverer": 3, "deliver": 3, "copy": 2, "restore": 2}
"""Steps fail, deliverers are replaced and go on."""
CRASHES: Often = {"flow": 3, "accept": 2, "carry": 2, "kill_processor": 5, "restart_node": 3}
"""Processors end anywhere."""
SEVERAL: Often = {"flow": 4, "add": 3, "up_or_down": 2, "leave_behind": 3, "retire_raw": 2, "deliver": 2}
"""Several destinations, some of them away."""


def steps_of(often: Often) -> st.SearchStrategy[tuple[Any, ...]]:
    """A step of these."""
    return st.one_of(
        [st.tuples(st.just(name), *STEPS[name]) for name, weight in often.items() for _ in range(weight)]
    )


PLACES_MAX = 3
EXAMPLES = 30


class Road(RuleBasedStateMachine):
    """One history. A step is followed by a look at every destination, the end by quiescence.

    There is one rule: Hypothesis would leave out some of several rules in each history, mostly those that let anything
    happen.
    """

    parts = Parts()
    steps = steps_of(ANYTHING)
    on_disk = False
    """Whether the first destination is a DuckDB file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="road", dir=FOLDERS)
        self.world: World | None = None
        self.failed = False

    @property
    def w(self) -> World:
        assert self.world is not None
        return self.world

    def place(self, number: int) -> Place:
        places = list(self.w.places.values())
        return places[number % len(places)]

    @initialize(
        cut=st.sampled_from((1 << 20, 9000)), piece=st.sampled_from((1 << 20, 1, 9000)), refill=st.booleans()
    )
    def begin(self, cut: int, piece: int, refill: bool) -> None:
        self.world = World(self.folder, self.parts, cut_bytes_max=cut, piece_bytes=piece)
        shelf = DuckDbShelf(self.folder) if self.on_disk else None
        self.w.add("beginning", "refill" if refill else "pause", shelf)

    @rule(data=st.data())
    def do(self, data: st.DataObject) -> None:
        """One step, and a look; a history that has failed needs no end."""
        name, *drawn = data.draw(self.steps)
        try:
            getattr(self, name)(*drawn)
            self.w.examine()
        except BaseException:
            self.failed = True
            raise

    # -- steps

    def flow(self, blocks: list[tuple[int, list[int]]], rounds: int) -> None:
        """Events come in and go all the way, a commit for each block."""
        for writer, backs in blocks:
            self.w.receive(writer, backs)
            self.w.write(writer)
            for number in list(self.w.processors):
                self.w.process(number, 1)
        for place in self.w.places.values():
            self.w.deliver(place, rounds)

    def overtake(self, first: int, second: int) -> None:
        """A client sends an event again, to another writer, before the first block is durable: the copy is processed
        first."""
        self.w.receive(first, [0])
        self.w.receive(second, [1])
        self.w.write(second)
        for number in list(self.w.processors):
            self.w.process(number, 2)
        for place in self.w.places.values():
            self.w.deliver(place, 3)

    def accept(self, blocks: list[tuple[int, list[int], bool]]) -> None:
        """Events come in; some are not durable yet."""
        for writer, backs, durable in blocks:
            self.w.receive(writer, backs)
            if durable:
                self.w.write(writer)

    def carry(self, turns: int, place: int, rounds: int) -> None:
        """Processing goes on, and one destination."""
        for number in list(self.w.processors):
            self.w.process(number, turns)
        self.w.deliver(self.place(place), rounds)

    def deliver(self, place: int, which: int, rounds: int) -> None:
        self.w.deliver(self.place(place), rounds, "", which)

    def fail_step(
        self, block: tuple[int, list[int]], place: int, which: int, rounds: int, fault: str
    ) -> None:
        """Something to deliver, and trouble in delivering it."""
        self.w.receive(*block)
        self.w.write(block[0])
        for number in list(self.w.processors):
            self.w.process(number, 2)
        self.w.deliver(self.place(place), rounds, fault, which)

    def kill_processor(self, number: int, fault: str) -> None:
        self.w.process(number, 1, fault)

    def restart_deliverer(self, place: int, older: int, zombie: bool) -> None:
        self.w.restart_deliverer(self.place(place), older, zombie=zombie)

    def restart_node(self, workers: int) -> None:
        self.w.restart_node(workers)

    def restart_collector(self, writer: int) -> None:
        self.w.restart_collector(writer)

    def up_or_down(self, place: int, up: bool) -> None:
        self.place(place).up = up

    def copy(self, place: int) -> None:
        self.w.copy(self.place(place))

    def restore(self, place: int, which: int, rounds: int) -> None:
        if copied := [p for p in self.w.places.values() if p.copies]:
            self.w.restore(copied[place % len(copied)], which)
            self.w.deliver(copied[place % len(copied)], rounds)

    def go_back(self, place: int, blocks: list[tuple[int, list[int]]], last: tuple[int, list[int]]) -> None:
        """A destination is restored when the ready log no longer holds what it lacks then."""
        one = self.place(place)
        self.w.copy(one)
        self.flow(blocks, 9)
        self.w.save_folds()
        self.w.tell()
        self.w.retire_ready(0)
        self.w.restore(one, -1)
        self.flow([last], 20)

    def leave_behind(self, place: int, blocks: list[tuple[int, list[int]]]) -> None:
        """A destination is away while everything goes on, and what nobody wants any more is given back."""
        one = self.place(place)
        one.up = False
        self.flow(blocks, 9)
        self.w.save_folds()
        self.w.tell()
        self.w.retire_ready(0)
        self.w.retire_raw(over_quota=True)
        one.up = True

    def add(self, start: str, on_restored: str, on_raw_full: str) -> None:
        if len(self.w.places) < PLACES_MAX:
            self.w.add(start, on_restored, on_raw_full=on_raw_full)

    def write_off(self, place: int) -> None:
        self.w.write_off(self.place(place))

    def compress(self) -> None:
        self.w.compress()

    def operate(self, place: int, start: str, rounds: int) -> None:
        """An operator looks at a destination, decides where it is paused, and it goes on."""
        self.w.deliver(self.place(place), rounds)
        self.w.operate(self.place(place), start)
        self.w.deliver(self.place(place), rounds)

    def tell(self) -> None:
        self.w.tell()

    def retire_ready(self, held_bytes_max: int, tell: bool) -> None:
        if tell:
            self.w.tell()
        self.w.retire_ready(held_bytes_max)

    def retire_raw(self, over_quota: bool, tell: bool) -> None:
        if tell:
            self.w.tell()
        self.w.retire_raw(over_quota=over_quota)

    def wait(self, minutes: int) -> None:
        self.w.wait(minutes)

    # -- the end

    def teardown(self) -> None:
        try:
            if self.world is not None and not self.failed:
                places = list(self.w.places.values())
                self.w.settle(places[-1] if len(places) > 1 else None)
        finally:
            if self.world is not None:
                self.world.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def machine(parts: Parts, often: Often, *, on_disk: bool = False) -> type[Road]:
    """The machine over these parts, with steps of these."""
    return type("Road", (Road,), {"parts": parts, "steps": steps_of(often), "on_disk": on_disk})


def bounded(examples: int, steps: int = 30) -> settings:
    """So many histories, the same each time, and no search for a shorter one."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
def test_every_destination_has_each_event_once_under_any_fault() -> None:
    """INV-DEST, INV-STATE, INV-DST-1, INV-DST-2, INV-DST-3, INV-DST-4, INV-PROC-2, INV-PROC-3, INV-PROC-4,
    INV-LED-1."""
    run_state_machine_as_test(machine(Parts(), ANYTHING), settings=bounded(EXAMPLES))


@pytest.mark.slow
def test_what_left_the_ready_log_comes_from_private_runs_and_is_the_same() -> None:
    """INV-STATE, INV-DEST: what a run gives depends on the set of events below where it begins."""
    run_state_machine_as_test(machine(Parts(), OFF_CHAIN), settings=bounded(EXAMPLES // 3))


@pytest.mark.slow
def test_a_duckdb_file_has_each_event_once_under_any_fault() -> None:
    """INV-DEST, INV-DST-1, INV-LED-1."""
    often = {name: weight for name, weight in ANYTHING.items() if name != "add"}
    run_state_machine_as_test(machine(Parts(), often, on_disk=True), settings=bounded(5, 20))


def found(invariants: str, parts: Parts, often: Often, examples: int = 60) -> None:
    """The oracle names one of the invariants within so many histories."""
    try:
        run_state_machine_as_test(machine(parts, often), settings=bounded(examples, 20))
    except Violation as violation:
        assert any(name in str(violation) for name in invariants.split()), violation
    else:
        pytest.fail(f"{examples} histories did not find it")


@pytest.mark.slow
@pytest.mark.broken_variant
def test_commits_that_do_not_compare_are_found() -> None:
    """INV-DEST, INV-DST-1: `blind`."""
    found("INV-DEST INV-LED-1", Parts(destination=broken.Blind), TROUBLE)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_a_fence_by_epoch_only_is_found() -> None:
    """INV-DEST, INV-DST-1: `epoch_only`."""
    found("INV-DEST INV-LED-1", Parts(destination=broken.EpochOnly), TROUBLE)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_rows_and_position_in_two_steps_are_found() -> None:
    """INV-DEST, INV-DST-1."""
    found("INV-DEST INV-LED-1", Parts(destination=broken.HalfSteps), TROUBLE)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_counters_in_a_step_of_their_own_are_found() -> None:
    found("INV-LED-1", Parts(destination=broken.CountsFirst), TROUBLE)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_rows_before_their_columns_are_found() -> None:
    found("INV-DST-4", Parts(destination=broken.NeverFits), TROUBLE)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_a_private_run_without_the_ids_below_it_is_found() -> None:
    """INV-STATE, INV-DEST: `no_seed`."""
    found("INV-DEST INV-LED-1", Parts(private=broken.Unseeded), OFF_CHAIN)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_a_private_run_with_the_ids_that_the_chain_knows_is_found() -> None:
    """INV-STATE, INV-DEST: `shared_seen`."""
    found("INV-DEST INV-LED-1", Parts(private=broken.SharedSeen, processor=broken.Known), OFF_CHAIN)


def overtaken(folder: Path, parts: Parts) -> None:
    """A destination is restored to where it had the copy of an event, and not yet the event, which came first."""
    world = World(str(folder), parts)
    place = world.add("beginning", "refill")
    world.receive(0, [0])
    for writer, backs in ((1, [1]), (0, [0]), (2, [0]), (2, [0]), (2, [0]), (2, [0])):
        world.receive(writer, backs)
        world.write(writer)
        world.process(0, 1)
        world.deliver(place, 20)
        if writer == 1:
            world.copy(place)
    world.restart_processor(0)
    world.tell()
    world.retire_ready(0)
    world.restore(place, 0)
    try:
        world.settle()
    finally:
        world.close()


@pytest.mark.slow
def test_an_event_that_its_copy_overtook_is_there_once_after_a_private_run(tmp_path: Path) -> None:
    """INV-STATE, INV-DEST."""
    overtaken(tmp_path / "data", Parts())


@pytest.mark.slow
@pytest.mark.broken_variant
def test_processing_again_and_leaving_out_what_is_below_is_found() -> None:
    """INV-STATE, INV-DEST: `redo_as_new`."""
    found("INV-DEST INV-LED-1", Parts(private=broken.RedoneAsNew), OFF_CHAIN)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_processing_an_overtaken_event_again_as_new_is_found(tmp_path: Path) -> None:
    """INV-STATE, INV-DEST: `redo_as_new` in the shortest history."""
    with pytest.raises(Violation, match=r"INV-DEST|INV-LED-1"):
        overtaken(tmp_path / "data", Parts(private=broken.RedoneAsNew))


@pytest.mark.slow
@pytest.mark.broken_variant
def test_ids_that_are_durable_before_their_commit_are_found() -> None:
    """INV-PROC-1, INV-PROC-3, INV-DEST: `state_ahead`."""
    found("INV-DEST INV-LED-1", Parts(processor=broken.StateAhead), CRASHES)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_ids_that_a_restart_does_not_bring_back_are_found() -> None:
    """INV-PROC-3, INV-DEST."""
    found("INV-DEST INV-LED-1", Parts(processor=broken.ForgetsIds), CRASHES)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_a_configuration_that_goes_back_is_found() -> None:
    found("INV-PROC-4", Parts(epoch=broken.falling_epoch, processor=broken.AnyEpoch), CRASHES)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_waiting_for_another_destination_is_found() -> None:
    found("INV-DST-3", Parts(deliverer=broken.SharedTrouble), SEVERAL)


@pytest.mark.slow
@pytest.mark.broken_variant
def test_giving_back_raw_that_a_destination_lacks_is_found() -> None:
    """INV-DEST: nobody asks below `safe`."""
    found("SAFE", Parts(safe=broken.safe_for_the_furthest), SEVERAL)


# -- what once did not hold


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(str(tmp_path / "data"), Parts())
    yield made
    made.close()


@pytest.mark.slow
def test_a_destination_that_starts_now_counts_what_it_leaves_out(world: World) -> None:
    """INV-LED-1."""
    world.receive(0, [0, 0])
    world.write(0)
    world.process(0, 1)
    world.tell()
    late = world.add("now", "pause")
    world.deliver(late, 1)
    world.settle()
    totals = [row.total for row in late.shelf.positions().values()]
    assert (sum(t.skipped for t in totals), sum(t.rows for t in totals)) == (2, 1)


@pytest.mark.slow
def test_a_destination_that_starts_now_begins_where_processing_is_though_the_ready_log_is_empty(
    world: World,
) -> None:
    first = world.add("beginning", "pause")
    for _ in range(6):
        world.receive(0, [0, 0])
        world.write(0)
        world.process(0, 1)
    world.restart_node(1)
    world.deliver(first, 20)
    world.tell()
    world.retire_ready(0)
    world.deliver(world.add("now", "pause"), 20)


@pytest.mark.slow
def test_a_destination_left_behind_doubles_nothing_when_raw_is_over_its_quota(world: World) -> None:
    """INV-DEST: of the ids below its position, the raw log holds none any more, though they are within the window."""
    places = [world.add("beginning", "pause") for _ in range(2)]
    for number, backs in enumerate(([0], [0], [0], [0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3])):
        places[0].up = number < 4
        world.receive(0, backs)
        world.write(0)
        world.process(0, 1)
        for place in places:
            world.deliver(place, 20)
    world.restart_processor(0)
    world.deliver(places[1], 20)
    world.tell()
    world.retire_ready(0)
    world.retire_raw(over_quota=True)
    world.settle()
    assert not any(place.owed.doubtful for place in places)
