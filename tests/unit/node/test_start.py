"""What is said before any process starts."""

import pytest

from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import SystemRng
from headwater.node import start
from tests.parts import free_ports

DISK = SystemDisk()


def prepare(tmp_path, text):
    path = tmp_path / "headwater.yaml"
    path.write_text(text)
    return start.prepare(str(path), str(tmp_path / "data"), DISK, SystemClock(), SystemRng(), {})


def refused(tmp_path, text):
    with pytest.raises(Misconfigured) as caught:
        prepare(tmp_path, text)
    return str(caught.value)


@pytest.fixture
def ports():
    with free_ports(2) as found:
        pass
    return found


def listeners(ports):
    return 'collect:\n  listen: "127.0.0.1:{}"\nops:\n  listen: "127.0.0.1:{}"\n'.format(*ports)


def test_an_address_of_another_machine_names_file_and_line(tmp_path, ports):
    text = listeners(ports).replace("127.0.0.1", "192.0.2.1", 1)
    told = refused(tmp_path, text)
    assert f"headwater.yaml:2: collect.listen: cannot listen on 192.0.2.1:{ports[0]}: " in told


def test_a_default_that_cannot_be_had_names_the_file(tmp_path, ports):
    told = refused(tmp_path, listeners(ports) + "data_bytes_max: 268435456\nprocess: {workers: 8}\n")
    assert told.startswith("headwater.yaml:5: data_bytes_max: is too small")
