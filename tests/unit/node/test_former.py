"""When the folders of a processor that no longer runs go, and what a crash in the middle leaves."""

import os
import shutil
from types import SimpleNamespace

import pytest

from headwater.config.report import Report
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log import files, recover
from headwater.log.block import Secret
from headwater.log.ready import ReadyWriter
from headwater.log.write import BlockWriter
from headwater.node import former

DISK = SystemDisk()
LOG = 5
SECRET = Secret(0x5EC2E7)


@pytest.fixture
def data(tmp_path):
    """A node with one processor that had three; number 2 left two commits, and half of a third."""
    for path in ("ready/0", "state/0", "ready/2", "state/2/ids", "state/deliver-a"):
        (tmp_path / path).mkdir(parents=True)
    folder = f"{tmp_path}/ready/2"
    blocks = BlockWriter(
        DISK, SystemClock(), folder, WriterId(2), LOG, start=1, offset_ns=0,
        segment_bytes=1 << 20, submit=inline, secret=SECRET,
    )  # fmt: skip
    writer, at = ReadyWriter(blocks), EMPTY
    for seq in (1, 2):
        target = Vector({WriterId(7): Position(1, seq)})
        writer.append(Commit((2,), at, target, 1, 0, {}, {}))
        at = target
    blocks.write(b"half", records=1, events=1, flags=0)
    blocks.close()
    recover.recover_all(DISK, folder, SECRET, recover.no_streams)
    end = files.read_end(DISK, folder, LOG)
    assert end is not None and end.seq == 3
    return str(tmp_path)


def process(number, taken):
    return {f"process-{number}": Report(role=f"process-{number}", pid=1, start=1, detail={"former": taken})}


def deliver(**passed):
    told = {name: {"ready_passed": {} if at is None else {"2": [LOG, at]}} for name, at in passed.items()}
    return {"deliver-x": Report(role="deliver-x", pid=1, start=1, detail={"destinations": told})}


END = [LOG, 2]


def there(data):
    return [part for part in ("ready", "state") if os.path.exists(f"{data}/{part}/2")]


@pytest.mark.parametrize(
    ("workers", "reports"),
    [
        (1, {}),
        (1, deliver(a=2)),
        (1, process(0, {}) | deliver(a=2)),
        (2, process(0, {"2": END}) | deliver(a=2)),
        (2, process(0, {"2": END}) | process(1, {"2": [LOG, 1]}) | deliver(a=2)),
        (1, process(0, {"2": END})),
        (1, process(0, {"2": END}) | deliver(b=2)),
        (1, process(0, {"2": END}) | deliver(a=None)),
        (1, process(0, {"2": END}) | deliver(a=1)),
        (3, process(0, {"2": END}) | process(1, {"2": END}) | process(2, {"2": END}) | deliver(a=2)),
    ],
    ids=[
        "nobody has said anything", "no processor has", "not taken over", "one of two took it over",
        "taken over to different ends", "no destination has said", "another destination has said",
        "a paused destination", "a destination behind", "it runs",
    ],
)  # fmt: skip
def test_nothing_goes_that_anybody_may_need(data, workers, reports):
    assert former.retire(DISK, data, reports, workers, ["a"], SECRET) == []
    assert there(data) == ["ready", "state"]


def test_what_everybody_has_goes_and_half_a_commit_keeps_nothing(data):
    reports = process(0, {"2": END}) | deliver(a=2)
    assert former.retire(DISK, data, reports, 1, ["a"], SECRET) == [2]
    assert sorted(os.listdir(f"{data}/ready")) == ["0"]
    assert sorted(os.listdir(f"{data}/state")) == ["0", "deliver-a"]
    assert former.retire(DISK, data, reports, 1, ["a"], SECRET) == []


def test_a_new_destination_that_begins_now_does_not_keep_what_was_given_back_before(data):
    for name in os.listdir(f"{data}/ready/2"):
        if name.endswith(".seg"):
            os.unlink(f"{data}/ready/2/{name}")
    nowhere = {"deliver-x": Report(role="deliver-x", pid=1, start=1, detail={
        "destinations": {"a": {"ready_passed": {"2": [0, 0]}}}
    })}  # fmt: skip
    assert former.retire(DISK, data, process(0, {"2": END}) | nowhere, 1, ["a"], SECRET) == [2]


def test_without_destinations_what_is_taken_over_goes(data):
    assert former.retire(DISK, data, process(0, {"2": END}), 1, [], SECRET) == [2]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(4))
def test_a_crash_while_removing_leaves_state_without_ready_at_most_and_is_finished_later(
    data, monkeypatch, at
):
    steps = iter(range(100))

    def die(real):
        def step(*args, **more):
            if next(steps) == at:
                raise Killed
            return real(*args, **more)

        return step

    dying = SimpleNamespace(
        exists=DISK.exists, listdir=DISK.listdir, sync_dir=DISK.sync_dir, rename=die(DISK.rename)
    )
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", die(shutil.rmtree))
        with pytest.raises(Killed):
            former.remove(dying, data, 2)
    assert there(data) in (["ready", "state"], ["state"], [])
    former.finish(DISK, data)
    assert not [
        n for part in ("ready", "state") for n in os.listdir(f"{data}/{part}") if n.endswith(former.GONE)
    ]
    reports = process(0, {"2": [0, 0]}) | deliver(a=2)
    former.retire(DISK, data, reports, 1, ["a"], SECRET)
    assert there(data) == []
