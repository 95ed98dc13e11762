"""What is said before any process starts."""

import contextlib
import os
import socket
import subprocess
import sys
from subprocess import PIPE

import pytest

from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import SystemRng
from headwater.node import listening, start
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


CLUSTER = "cluster:\n  secret: a-secret-of-the-cluster\n  listen: {}\n  lane: tcp://127.0.0.1:0\n"


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ("tcp://192.0.2.1:0", "cannot listen on tcp://192.0.2.1:0: "),
        ("tcp://[nic7:ipv4]:0", "this machine has no network interface 'nic7'"),
    ],
)
def test_a_listener_of_the_cluster_that_cannot_be_had_names_file_and_line(tmp_path, ports, binding, said):
    told = refused(tmp_path, listeners(ports) + CLUSTER.format(binding))
    assert told.startswith("headwater.yaml:7: cluster.listen: ")
    assert said in told


TIME_WAIT = "06"
STRAY = """
import socket, sys
one = socket.socket(socket.{family})
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(({host!r}, {port}))
one.listen()
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stray():
    """Starts a process that would share a port with anybody of its user."""
    with contextlib.ExitStack() as started:

        def listen(port, host="127.0.0.1", family="AF_INET"):
            code = STRAY.format(port=port, host=host, family=family)
            process = started.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True)
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            return process.pid

        yield listen


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_process_that_would_share_the_port_is_refused_by_name(tmp_path, ports, stray, host):
    pid = stray(ports[0], host)
    told = refused(tmp_path, listeners(ports))
    assert f"headwater.yaml:2: collect.listen: cannot listen on 127.0.0.1:{ports[0]}: " in told
    assert f"process {pid} ({os.path.basename(sys.executable)} -c " in told


def test_each_address_of_a_name_is_looked_at(monkeypatch, ports, stray):
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", ports[1])),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", ports[0])),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: found)
    pid = stray(ports[0])
    assert f"process {pid} " in (listening.trouble("both.example", ports[0]) or "")


def test_all_addresses_include_those_of_ipv4(ports, stray):
    pid = stray(ports[0])
    assert f"process {pid} " in (listening.trouble("::", ports[0]) or "")
    pid = stray(ports[1], "::", "AF_INET6")
    assert f"process {pid} " in (listening.trouble("127.0.0.1", ports[1]) or "")


def test_a_listener_whose_process_cannot_be_seen_is_refused_without_its_number(monkeypatch, ports, stray):
    stray(ports[0])
    monkeypatch.setattr(listening, "PROC", "/nowhere")
    assert listening.trouble("127.0.0.1", ports[0]) == "Address already in use"


def test_connections_that_only_just_ended_do_not_keep_a_port(ports):
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        door.bind(("127.0.0.1", ports[0]))
        door.listen()
        with socket.create_connection(("127.0.0.1", ports[0])) as client:
            door.accept()[0].close()  # who closes first waits
            assert client.recv(1) == b""
    with open("/proc/net/tcp") as table:
        assert f"0100007F:{ports[0]:04X} " in "".join(line for line in table if line.split()[3] == TIME_WAIT)
    assert listening.trouble("127.0.0.1", ports[0]) is None


def test_a_refused_start_leaves_no_folder_but_never_takes_one_away(tmp_path, ports):
    bad = listeners(ports) + "keys: 7\n"
    refused(tmp_path, bad)
    assert not (tmp_path / "data").exists()
    prepare(tmp_path, listeners(ports)).lock.release()
    refused(tmp_path, bad)
    assert (tmp_path / "data" / "headwater.json").exists()


@pytest.mark.parametrize("inside", ["", "/deeper"])
def test_a_file_is_no_data_folder(tmp_path, ports, inside):
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "headwater.yaml").write_text(listeners(ports))
    with pytest.raises(Misconfigured, match=r"--data .*a\.txt.*expected a folder"):
        start.prepare(
            str(tmp_path / "headwater.yaml"),
            f"{tmp_path}/a.txt{inside}",
            DISK,
            SystemClock(),
            SystemRng(),
            {},
        )
    assert (tmp_path / "a.txt").read_text() == "mine"
