import json
import os
import stat
import subprocess
import sys

import pytest

from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import SeededRng
from headwater.kit.simulate.disk import SimDisk
from headwater.node import first
from headwater.node.folder import FORMAT_COMPRESSED, make_folder, open_folder, take_lock

disk = SystemDisk()


class StoppedClock(SystemClock):
    def __init__(self, wall_ns=0):
        self.wall = wall_ns

    def wall_ns(self):
        return self.wall

    def boot_ns(self):
        return 0


def make(path):
    return make_folder(str(path), disk, SeededRng(1))


def test_a_new_folder_has_an_id_with_room_for_workers(tmp_path):
    folder = make(tmp_path / "data")
    assert folder.id and folder.id & 0xFFFF == 0
    assert folder.writer(3) == folder.id | 3
    assert folder.identity.partitions == 64
    assert {"raw", "ready", "state", "run", "keys"} <= set(os.listdir(tmp_path / "data"))


def test_a_folder_keeps_its_id_and_counts_its_starts(tmp_path):
    first_time = make(tmp_path)
    assert first_time.count_start() == 1
    again = make(tmp_path)
    assert (again.id, again.count_start()) == (first_time.id, 2)


def test_log_ids_grow_whatever_the_clock_does(tmp_path):
    folder = make(tmp_path)
    rng = SeededRng(2)
    ids = [
        folder.next_log_id(StoppedClock(wall_ns), rng) for wall_ns in (10**18, 10**18, 5, 0, 2 * 10**18, 7)
    ]
    ids.append(open_folder(str(tmp_path), disk).next_log_id(StoppedClock(0), rng))
    assert ids == sorted(set(ids))
    assert ids[0] >> 22 == 10**12


def test_a_restored_copy_does_not_count_on_as_its_lost_future_did(tmp_path):
    make(tmp_path).next_log_id(StoppedClock(2 * 10**18), SeededRng(1))
    copy = (tmp_path / "headwater.json").read_text()
    back = StoppedClock(10**18)  # the wall clock went back, and stays there
    lost = {open_folder(str(tmp_path), disk).next_log_id(back, SeededRng(2)) for _ in range(3)}
    (tmp_path / "headwater.json").write_text(copy)
    again = {open_folder(str(tmp_path), disk).next_log_id(back, SeededRng(3)) for _ in range(3)}
    assert not lost & again


def test_a_new_folder_is_there_after_a_crash_of_the_machine():
    for seed in range(20):
        sim = SimDisk(seed)
        made = make_folder("/srv/headwater/data", sim.process("first start"), SeededRng(1))
        sim.crash()
        assert open_folder("/srv/headwater/data", sim.process("second start")).id == made.id


def test_a_folder_that_was_made_but_not_durably_is_made_so_by_the_next_start():
    for seed in range(20):
        sim = SimDisk(seed)
        sim.process("died").mkdir("/data")
        made = make_folder("/data", sim.process("next"), SeededRng(1))
        sim.crash()
        assert open_folder("/data", sim.process("after")).id == made.id


def test_each_folder_has_a_secret_that_is_kept_and_is_its_owners_alone(tmp_path):
    one, other = make(tmp_path / "one"), make_folder(str(tmp_path / "other"), disk, SeededRng(2))
    one.count_start()
    assert stat.S_IMODE(os.stat(tmp_path / "one" / "headwater.json").st_mode) == 0o600
    assert open_folder(str(tmp_path / "one"), disk).secret == one.secret != other.secret


def test_log_ids_are_above_every_one_that_is_known(tmp_path):
    folder = make(tmp_path)
    folder.know_log_id(5 << 60)
    assert folder.next_log_id(StoppedClock(10**18), SeededRng(1)) > 5 << 60
    folder.know_log_id(7)
    assert open_folder(str(tmp_path), disk).next_log_id(StoppedClock(0), SeededRng(1)) > 5 << 60


def test_another_format_is_refused_with_what_to_do(tmp_path):
    make(tmp_path)
    path = tmp_path / "headwater.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(Misconfigured, match="has format 1; this version of Headwater reads 2"):
        make(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2}', '{"format": 2, "folder_id": 3}'])
def test_an_unreadable_identity_is_refused(tmp_path, text):
    (tmp_path / "headwater.json").write_text(text)
    with pytest.raises(Misconfigured):
        open_folder(str(tmp_path), disk)


def test_somebody_elses_folder_is_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("x")
    with pytest.raises(Misconfigured, match=r"not empty: it holds thesis\.doc"):
        make(tmp_path)


def test_a_database_of_places_may_lie_there_before_the_first_start(tmp_path):
    (tmp_path / "places.mmdb").write_text("x")
    assert make(tmp_path).path == str(tmp_path)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match="is not a data folder"):
        open_folder(str(tmp_path), disk)


def test_a_second_lock_says_who_holds_the_first(tmp_path):
    lock = take_lock(str(tmp_path), SystemClock())
    with pytest.raises(Misconfigured, match=f"in use by process {os.getpid()}"):
        take_lock(str(tmp_path), SystemClock())
    lock.release()
    take_lock(str(tmp_path), SystemClock()).release()


def test_the_lock_is_held_until_the_last_process_that_inherited_it_is_gone(tmp_path):
    lock = take_lock(str(tmp_path), SystemClock())
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[lock.file],
    )
    (tmp_path / "lock").write_text("999999999\n")  # the supervisor itself is gone
    lock.release()
    with pytest.raises(Misconfigured, match="in use"):
        take_lock(str(tmp_path), SystemClock(), wait_s=0.1)
    child.communicate(b"\n")
    take_lock(str(tmp_path), SystemClock(), wait_s=0.1).release()


def test_a_generated_secret_is_its_owners_alone_and_never_replaced(tmp_path):
    path = first.write_secret(str(tmp_path), "web", SeededRng(1))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(Misconfigured, match="exists already"):
        first.write_secret(str(tmp_path), "web", SeededRng(2))


def test_the_default_configuration_never_replaces_one(tmp_path):
    path = tmp_path / "headwater.yaml"
    first.write_configuration(str(path), disk)
    assert "warehouse" in path.read_text()
    path.write_text("mine")
    first.write_configuration(str(path), disk)
    assert path.read_text() == "mine"


def test_a_folder_gets_the_format_of_compressed_segments_only_when_it_holds_one(tmp_path):
    made = make(tmp_path / "data")
    path = tmp_path / "data/headwater.json"
    assert json.loads(path.read_text())["format"] == 2
    made.know_format(FORMAT_COMPRESSED)
    assert json.loads(path.read_text())["format"] == 3
    assert open_folder(str(tmp_path / "data"), SystemDisk()).id == made.id
