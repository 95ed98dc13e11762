"""The faults that are drawn from. Each leaves a node that runs, or is about to."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.journeys.running import Running, children, wait_for, zombie

ROLES = ("collect", "process", "deliver", "ops")
MIB = 1024 * 1024
LOGS = "log: {segment_bytes: 8388608, ready_segment_bytes: 8388608, spare_segments_max: 1}\n"
DESTINATION = "  {name}: {{type: duckdb, path: '{path}', on_restored: refill, retry_interval_s: 0.5}}\n"
NEW_MAX = 2


class World:
    """A node, its destinations outside of its data folder, and copies of both from earlier."""

    def __init__(self, folder: Path, make: Callable[..., Running], seed: str) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.names = ["warehouse", "second"]
        self.kills: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.copies: dict[str, list[tuple[str, bytes]]] = {}
        """Destination → its files as they were at an earlier moment."""
        self.folder_copy: Path | None = None
        self.unknown = 0
        """Events that were delivered, of which the data folder does not know: it is a copy from before them."""
        self.delivered_at_copy = 0
        self.parameters = {"collect": 2, "process": 1}
        self.node = make(workers=2, more=self.more())
        self.node.start()

    def more(self) -> str:
        """Destinations and sections beside those that every node has."""
        lines = [DESTINATION.format(name=name, path=self.file(name)) for name in self.names[1:]]
        return "".join(lines) + LOGS + f"process: {{workers: {self.parameters['process']}}}\n"

    def file(self, name: str) -> Path:
        return self.node.data / "warehouse.duckdb" if name == "warehouse" else self.folder / f"{name}.duckdb"

    def note(self, fault: str) -> None:
        self.faults[fault] += 1

    def dead(self, role: str, count: int = 1) -> None:
        self.kills[role] += count

    def down(self) -> None:
        """Kill everything at once."""
        self.dead("all at once", len(self.node.pids()) + 1)
        self.node.kill_all()

    def copy_files(self) -> None:
        """Remember the files of the second destination as they are, with nobody holding them."""
        files = [path for path in (self.file("second"), wal(self.file("second"))) if path.exists()]
        self.copies["second"] = [(str(path), path.read_bytes()) for path in files]

    def put_back(self, name: str) -> None:
        """The earlier files instead of today's."""
        for path in (self.file(name), wal(self.file(name))):
            path.unlink(missing_ok=True)
        for copied, content in self.copies.get(name, []):
            Path(copied).write_bytes(content)


def wal(file: Path) -> Path:
    """DuckDB's write-ahead log of a file."""
    return file.with_name(file.name + ".wal")


def kill_one(world: World, role: str = "") -> None:
    """kill -9 of one process."""
    role = role or world.rng.choice(ROLES)
    pids = world.node.pids(f" {role} ")
    if pids:
        world.node.kill(world.rng.choice(pids))
        world.dead(role)


def kill_each(world: World) -> None:
    """kill -9 of every process but the supervisor, one after the other."""
    for role in ROLES:
        kill_one(world, role)
        time.sleep(world.rng.uniform(0, 0.3))


def kill_supervisor(world: World) -> None:
    """kill -9 of the supervisor; the others die with it."""
    pids = children(world.node.pids("supervisor")[0])
    world.node.kill(*world.node.pids("supervisor"))
    world.dead("supervisor")
    assert world.node.process is not None
    world.node.process.wait(20)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() and not zombie(pid) for pid in pids), 20)
    world.node.start()


def kill_all(world: World) -> None:
    """kill -9 of the whole node; now and then again while it recovers."""
    world.down()
    if world.rng.random() < 0.5:
        world.node.begin()
        time.sleep(world.rng.uniform(0.1, 1.5))
        world.down()
    if world.rng.random() < 0.5:
        world.copy_files()
    world.node.start()


def freeze(world: World) -> None:
    """SIGSTOP of some processes for up to seconds, then SIGCONT."""
    pids = world.node.pids()
    pids = world.rng.sample(pids, min(world.rng.choice((1, 2, 4)), len(pids)))
    for pid in pids:
        signalled(pid, signal.SIGSTOP)
    time.sleep(world.rng.uniform(0.2, 2.5))
    for pid in pids:
        signalled(pid, signal.SIGCONT)


def frozen_killed(world: World) -> None:
    """SIGSTOP of one process, and kill -9 while it stands still."""
    pids = world.node.pids(f" {(role := world.rng.choice(ROLES))} ")
    for pid in pids[:1]:
        signalled(pid, signal.SIGSTOP)
        time.sleep(world.rng.uniform(0.1, 1.0))
        world.node.kill(pid)
        world.dead(role)


def other_numbers(world: World) -> None:
    """Drain, and start with other numbers of workers."""
    world.node.stop()
    world.parameters = {"collect": world.rng.choice((1, 2, 3)), "process": world.rng.choice((1, 2))}
    world.node.configure(workers=world.parameters["collect"], more=world.more())
    world.copy_files()
    world.node.start()


def hang_up(world: World) -> None:
    """SIGHUP; in the middle of it, now and then, a kill."""
    world.node.signal(signal.SIGHUP)
    if world.rng.random() < 0.5:
        time.sleep(world.rng.uniform(0, 0.3))
        kill_one(world)


def new_destination(world: World) -> None:
    """SIGHUP with one more destination, which begins at the beginning."""
    if len(world.names) >= 2 + NEW_MAX or world.unknown:
        return hang_up(world)
    world.names.append(f"new{len(world.names) - 1}")
    world.node.configure(more=world.more())
    world.node.signal(signal.SIGHUP)
    return None


def destination_restored(world: World) -> None:
    """The second destination's file is an earlier copy: put there while the node is down, or while it runs."""
    if "second" not in world.copies:
        world.down()
        world.copy_files()
        world.node.start()
        time.sleep(world.rng.uniform(0.5, 2))
    if world.rng.random() < 0.5:
        world.down()
        world.put_back("second")
        world.node.start()
        return
    (supervisor,) = world.node.pids("supervisor")
    os.kill(supervisor, signal.SIGSTOP)  # so that nobody opens the file while it is exchanged
    try:
        pids = world.node.pids(" deliver second")
        world.node.kill(*pids)
        world.dead("deliver", len(pids))
        wait_for(lambda: all(zombie(pid) for pid in pids), 10)
        world.put_back("second")
    finally:
        os.kill(supervisor, signal.SIGCONT)


DRAWN: dict[str, tuple[int, Callable[[World], None]]] = {
    "kill one": (12, kill_one),
    "kill each": (3, kill_each),
    "kill supervisor": (2, kill_supervisor),
    "kill all": (3, kill_all),
    "freeze": (4, freeze),
    "kill frozen": (2, frozen_killed),
    "hang up": (2, hang_up),
    "other numbers": (1, other_numbers),
    "new destination": (1, new_destination),
    "destination restored": (2, destination_restored),
}
"""Name → weight, fault."""


def drawn(rng: random.Random, count: int) -> list[str]:
    """Names of the faults of a round."""
    return rng.choices(list(DRAWN), [weight for weight, _ in DRAWN.values()], k=count)


def restore_folder(world: World) -> None:
    """The data folder becomes the copy that was made before: only while everything is delivered and nobody sends.

    What was accepted since is in the destinations and in no log: destinations that stand above the folder wait until
    the node was started once more, with logs that come behind theirs.
    """
    assert world.folder_copy is not None
    world.unknown = delivered(world) - world.delivered_at_copy
    world.down()
    keep = {file.name: file.read_bytes() for file in world.node.data.glob("warehouse.duckdb*")}
    shutil.rmtree(world.node.data)
    shutil.copytree(world.folder_copy, world.node.data)
    for file in world.node.data.glob("warehouse.duckdb*"):
        file.unlink()
    for name, content in keep.items():
        (world.node.data / name).write_bytes(content)
    world.copies.clear()
    world.note("data folder restored")
    world.node.start()
    wait_for(lambda: settled_ahead(world), 30, world.node.log, interval_s=0.2)
    world.node.stop()
    world.node.start()


def settled_ahead(world: World) -> bool:
    """Every destination has been opened: it waits for the second start, or is not ahead at all."""
    told = world.node.ask("GET", "/api/status", port=world.node.ops).json["destinations"]
    return all(told.get(name, {}).get("state") in ("paused", "delivering") for name in world.names)


def delivered(world: World) -> int:
    """Events in the destination that is furthest behind, by the ledger."""
    return sum(stream["delivered"] for stream in world.node.reconcile())


def copy_folder(world: World) -> None:
    """Remember the data folder as it is, with the node down."""
    world.delivered_at_copy = delivered(world)
    world.node.stop()
    world.folder_copy = world.folder / "yesterday"
    shutil.rmtree(world.folder_copy, ignore_errors=True)
    shutil.copytree(
        world.node.data, world.folder_copy, ignore=shutil.ignore_patterns("run", "*.sock", "lock")
    )
    world.node.start()


def signalled(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
