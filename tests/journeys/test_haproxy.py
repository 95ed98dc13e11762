"""HAProxy in front, telling the client's address by the PROXY protocol version 2, and what others say to that door."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.running import SERVER_KEY, Running, wait_for
from tests.journeys.shell import program
from tests.parts import free_port, require_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = """
global
    maxconn 200
defaults
    mode {mode}
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend tracking
    bind 127.0.0.1:{port}
    default_backend headwater
backend headwater
    option httpchk GET /ping
    server node1 127.0.0.1:{collect} send-proxy-v2 check inter 200ms {more}
"""
HEADER = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", 12) + bytes([198, 51, 100, 1]) + bytes(8)


@pytest.fixture(scope="module")
def node(make_shared_node: Callable[..., Running]) -> Running:
    """A node that believes this machine's 127.0.0.1, and nobody else on it."""
    made = make_shared_node(door='proxy_protocol: v2, trusted_proxies: ["127.0.0.1"]')
    made.start()
    return made


@pytest.fixture(params=["http", "tcp"])
def proxy(request: pytest.FixtureRequest, node: Running, tmp_path: Path) -> Iterator[int]:
    """HAProxy's port. Its checks say nothing of a client (command LOCAL); it serves only once they succeed."""
    port = free_port()
    config = tmp_path / "haproxy.cfg"
    told = CONFIG.format(mode=request.param, port=port, collect=node.collect, more="check-send-proxy")
    config.write_text(told)
    with program([str(require_part("haproxy")), "-db", "-f", str(config)], tmp_path / "said.log"):
        wait_for(lambda: node.status_of(port, "/ping") == 200, 10, (tmp_path / "said.log").read_text)
        yield port


def send(node: Running, name: str, **options: object) -> int:
    event = {"event": "Proxied", "messageId": name}
    headers = {"X-Write-Key": SERVER_KEY}
    return node.ask("POST", "/events", event, headers, **options).status  # type: ignore[arg-type]


def address_of(node: Running, name: str) -> object:
    node.wait_rows(1, where=f"message_id = '{name}'")
    (row,) = node.sql(f"select ip from events where message_id = '{name}'")
    return row["ip"]


def raw(node: Running, data: bytes, source: str = "127.0.0.1") -> bytes:
    """What comes back on a connection of its own."""
    with socket.create_connection(("127.0.0.1", node.collect), 10, (source, 0)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


@pytest.mark.real("haproxy")
def test_client_address_is_the_one_that_haproxy_saw(
    node: Running, proxy: int, request: pytest.FixtureRequest
) -> None:
    name = f"haproxy-{request.node.name}"
    assert send(node, name, port=proxy, source="127.0.0.7") == 200
    assert address_of(node, name) == "127.0.0.7"


def test_connection_without_header_or_from_a_stranger_is_refused_and_counted(node: Running) -> None:
    assert send(node, "bare") == 400
    request = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert raw(node, HEADER + request).startswith(b"HTTP/1.1 200 ")
    assert b"expected a trusted proxy" in raw(node, HEADER + request, source="127.0.0.9")

    def counted() -> int:
        text = node.ask("GET", "/metrics", port=node.ops).body.decode()
        wanted = 'headwater_collect_refused_total{reason="proxy_protocol",'
        return sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted))

    wait_for(lambda: counted() >= 2, 10)
    assert "proxy_protocol" in node.command("status").stdout
