"""The simulated disk finds programs that forget a sync, and never accuses those that do not."""

import errno

import pytest

from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.simulate import run
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.simulate.run import Simulation
from headwater.kit.simulate.view import Dead

OLD, NEW = b"old" * 3000, b"new" * 5000
SEEDS = range(60)


def write(disk: Disk, path: str, data: bytes, *, sync: bool = True) -> None:
    file = disk.open(path, write=True, create=True)
    disk.pwrite(file, data, 0)
    if sync:
        disk.sync(file)
    disk.close(file)


def start(disk: SimDisk) -> Disk:
    view = disk.process("set-up")
    view.mkdir("/data")
    view.sync_dir("/")
    write(view, "/data/file", OLD)
    view.sync_dir("/data")
    return view


def after_crash(sim: Simulation) -> bytes:
    sim.disk.crash()
    return read_whole(sim.disk.process("after"), "/data/file")


def right_replacement(sim: Simulation) -> None:
    view = start(sim.disk)
    write_whole(view, "/data/file", NEW)
    assert after_crash(sim) == NEW


def replacement_cut_short(sim: Simulation) -> None:
    start(sim.disk)
    view = sim.disk.process("writer")
    view.die_at(sim.random.randint(1, 8))
    with pytest.raises(Dead):
        write_whole(view, "/data/file", NEW)
        view.exists("/")
        view.kill()
        view.exists("/")
    assert after_crash(sim) in (OLD, NEW)


def without_sync(sim: Simulation) -> None:
    view = start(sim.disk)
    write(view, "/data/draft", NEW, sync=False)
    view.rename("/data/draft", "/data/file")
    view.sync_dir("/data")
    assert after_crash(sim) in (OLD, NEW)


def without_sync_dir(sim: Simulation) -> None:
    view = start(sim.disk)
    write(view, "/data/draft", NEW)
    view.rename("/data/draft", "/data/file")
    assert after_crash(sim) == NEW


def in_place(sim: Simulation) -> None:
    view = start(sim.disk)
    write(view, "/data/file", NEW, sync=False)
    assert after_crash(sim) in (OLD, NEW)


def new_folder_without_sync(sim: Simulation) -> None:
    view = start(sim.disk)
    view.mkdir("/data/folder")
    write(view, "/data/folder/file", NEW)
    view.sync_dir("/data/folder")
    sim.disk.crash()
    assert sim.disk.process("after").exists("/data/folder/file")


def order_of_names(sim: Simulation) -> None:
    view = start(sim.disk)
    write(view, "/data/first", NEW)
    write(view, "/data/second", NEW)
    sim.disk.crash()
    after = sim.disk.process("after")
    assert after.exists("/data/first") or not after.exists("/data/second")


def clean_pages(sim: Simulation) -> None:
    view = start(sim.disk)
    sim.disk.fail("sync", errno.EIO, suffix="file")
    with pytest.raises(OSError, match="Input/output"):
        write(view, "/data/file", NEW)
    file = view.open("/data/file", write=True)
    view.sync(file)
    assert view.pread(file, len(NEW), 0) == NEW  # the cache still shows it
    assert after_crash(sim) == NEW


@pytest.mark.parametrize("scenario", [right_replacement, replacement_cut_short])
def test_a_right_program_is_never_accused(scenario) -> None:
    assert run.simulate(scenario, SEEDS) == len(SEEDS)


@pytest.mark.parametrize(
    "scenario",
    [without_sync, without_sync_dir, in_place, new_folder_without_sync, order_of_names, clean_pages],
)
def test_a_program_that_forgets_something_is_found(scenario) -> None:
    assert run.first_failure(scenario, SEEDS) is not None


def test_a_process_kill_loses_nothing_that_was_written() -> None:
    disk = SimDisk()
    view = disk.process("one")
    write(view, "/file", NEW, sync=False)
    cell = view.cell("/cell", write=True)
    cell.set(7)
    view.kill()
    after = disk.process("two")
    assert read_whole(after, "/file") == NEW
    assert after.cell("/cell").get() == 7
    with pytest.raises(Dead):
        cell.set(8)


def test_a_machine_crash_leaves_any_earlier_value_in_a_cell() -> None:
    found = set()
    for seed in range(80):
        disk = SimDisk(seed)
        view = disk.process("one")
        cell = view.cell("/cell", write=True)
        view.sync_dir("/")
        for value in (1, 2, 3):
            cell.set(value)
        disk.crash()
        try:
            found.add(disk.process("two").cell("/cell").get())
        except FileNotFoundError:
            found.add(-1)
    assert found == {-1, 0, 1, 2, 3}


def test_tears_are_whole_sectors_of_old_new_or_zero() -> None:
    kinds = set()
    for seed in range(60):
        disk = SimDisk(seed)
        view = start(disk)
        file = view.open("/data/file", write=True)
        view.pwrite(file, b"n" * 8192, 4096)
        disk.crash()
        content = read_whole(disk.process("after"), "/data/file")
        assert content[:4096] == OLD[:4096]
        for at in range(4096, len(content), 512):
            piece = content[at : at + 512]
            old = OLD[at : at + 512].ljust(len(piece), b"\0")
            assert piece in (b"n" * len(piece), old, bytes(len(piece)))
            kinds.add(piece == b"n" * len(piece))
    assert kinds == {True, False}


def test_a_direct_read_shows_what_a_failed_sync_dropped() -> None:
    seen = set()
    for seed in range(30):
        disk = SimDisk(seed)
        view = start(disk)
        file = view.open("/data/file", write=True)
        view.pwrite(file, b"n" * 4096, 0)
        disk.fail("sync", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            view.sync(file)
        direct = view.open("/data/file", direct=True)
        assert view.pread(file, 4096, 0) == b"n" * 4096
        seen.add(view.pread(direct, 4096, 0) == OLD[:4096])
    assert seen == {True, False}


def test_a_full_disk_answers_enospc_and_takes_what_fits() -> None:
    disk = SimDisk(capacity_bytes=3 * 4096)
    view = disk.process("one")
    file = view.open("/file", write=True, create=True)
    assert view.pwrite(file, bytes(4 * 4096), 0) == 3 * 4096
    with pytest.raises(OSError, match="No space"):
        view.pwrite(file, b"x", 3 * 4096)
    assert view.pwrite(file, b"again", 0) == 5  # room that was taken stays usable
    assert view.free_bytes("/") == 0


def test_a_lying_disk_says_that_all_is_well() -> None:
    lost = 0
    for seed in range(20):
        disk = SimDisk(seed)
        view = start(disk)
        disk.lying = True
        write(view, "/data/file", NEW)
        disk.crash()
        lost += read_whole(disk.process("after"), "/data/file") != NEW
    assert lost > 5


def test_an_older_copy_takes_the_place_of_everything() -> None:
    disk = SimDisk()
    view = start(disk)
    backup = disk.copy()
    write_whole(view, "/data/file", NEW)
    disk.restore(backup)
    disk.crash()
    assert read_whole(disk.process("after"), "/data/file") == OLD
