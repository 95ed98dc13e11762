import pytest

from headwater.config.control import (
    HELD_JOINING,
    HELD_NO_MAJORITY,
    HELD_TOO_FEW,
    NOT_HELD,
    UNLIMITED,
    ControlPage,
    Held,
)
from headwater.kit.errors import Misconfigured


def test_readers_see_what_the_supervisor_writes(tmp_path):
    path = f"{tmp_path}/control"
    writer = ControlPage.create(path, offset_ns=-5, start=3)
    reader = ControlPage.attach(path)
    assert (reader.offset_ns, reader.start, reader.draining, reader.generation) == (-5, 3, False, 0)
    assert reader.raw_room_bytes == UNLIMITED
    writer.set_offset_ns(2**62)
    writer.set_draining()
    writer.set_generation(2)
    writer.set_raw_room_bytes(-1)
    writer.set_alive_boot_ns(9)
    assert (reader.offset_ns, reader.draining, reader.generation) == (2**62, True, 2)
    assert (reader.raw_room_bytes, reader.alive_boot_ns) == (0, 9)


def test_readers_cannot_write(tmp_path):
    ControlPage.create(f"{tmp_path}/control", offset_ns=0, start=1)
    with pytest.raises(TypeError):
        ControlPage.attach(f"{tmp_path}/control").set_draining()


def test_a_survivor_of_the_former_start_keeps_its_own_page(tmp_path):
    path = f"{tmp_path}/control"
    ControlPage.create(path, offset_ns=0, start=1)
    survivor = ControlPage.attach(path)
    ControlPage.create(path, offset_ns=0, start=2)
    assert (survivor.start, ControlPage.attach(path).start) == (1, 2)


@pytest.mark.parametrize("data", [b"", b"x" * 4096])
def test_what_is_no_control_page_is_refused(tmp_path, data):
    (tmp_path / "control").write_bytes(data)
    with pytest.raises(Misconfigured):
        ControlPage.attach(f"{tmp_path}/control")


def test_no_page_says_that_no_node_runs(tmp_path):
    with pytest.raises(Misconfigured, match="not running"):
        ControlPage.attach(f"{tmp_path}/control")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (NOT_HELD, ""),
        (Held(HELD_TOO_FEW, 1, 3), "not enough nodes: 1 of at least 3 see each other"),
        (Held(HELD_NO_MAJORITY, 2, 3), "cut off: hears 2 of the cluster's members, needs 3"),
        (Held(HELD_JOINING), "has not joined the cluster yet"),
        (Held(99), "the cluster asks to wait"),
    ],
)
def test_why_the_door_is_held_goes_through_one_cell(held, words):
    page = ControlPage.in_memory()
    assert page.held == NOT_HELD
    page.set_held(held)
    assert page.held == held
    assert page.held.text == words


def test_numbers_of_nodes_stay_in_their_bits():
    page = ControlPage.in_memory()
    page.set_held(Held(HELD_TOO_FEW, 2**40, 2**40))
    assert page.held == Held(HELD_TOO_FEW, 2**24 - 1, 2**32 - 1)
