"""The wires between nodes: every node is dialled at ``HOST``, where this passes the bytes on to where it listens, so
that a link between two nodes can be cut, in one direction or both.

Who dials is read from the first frame, which names it in clear. A cut link either is silent (bytes wait, and arrive
when it is mended, as those of TCP do), or is broken: its connections are closed, and no new ones are made.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

HOST = "127.0.0.2"
FIRST_BYTES = 64 * 1024
LOOK_S = 0.02

Link = tuple[str, str]
"""Names of who sends and who receives."""


class Wires:
    """``ids`` tells the nodes' ids in their names' order; those that have none yet are left out."""

    def __init__(self, ids: Callable[[], dict[str, str]]) -> None:
        self.ids = ids
        self.silent: set[Link] = set()
        self.broken: set[Link] = set()
        self.open: list[tuple[Link, socket.socket]] = []
        self.listeners: list[socket.socket] = []
        self.closed = False

    def serve(self, name: str, ports: Sequence[int]) -> None:
        """Take the connections to a node."""
        for port in ports:
            listener = socket.create_server((HOST, port), backlog=64)
            self.listeners.append(listener)
            threading.Thread(target=self.accept, args=(listener, name, port), daemon=True).start()

    def accept(self, listener: socket.socket, name: str, port: int) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self.connect, args=(client, name, port), daemon=True).start()

    def connect(self, client: socket.socket, name: str, port: int) -> None:
        """One connection, once it is known who dials."""
        with suppress(OSError):
            first = client.recv(FIRST_BYTES)
            by = self.dialler(first, name)
            if (by, name) not in self.broken and first:
                server = socket.create_connection(("127.0.0.1", port), 5)
                server.settimeout(None)
                self.open = [one for one in self.open if one[1].fileno() >= 0]
                self.open += [((by, name), client), ((by, name), server)]
                back = threading.Thread(target=self.forward, args=(server, client, (name, by)), daemon=True)
                back.start()
                self.forward(client, server, (by, name), first)
                back.join()
                server.close()
        client.close()

    def dialler(self, first: bytes, name: str) -> str:
        """Who sent this first frame to ``name``; that one itself, where it names nobody else."""
        for other, node in self.ids().items():
            if other != name and node.encode() in first:
                return other
        return name

    def forward(self, source: socket.socket, target: socket.socket, link: Link, first: bytes = b"") -> None:
        """One direction, until either end closes."""
        with suppress(OSError):
            data = first or source.recv(FIRST_BYTES)
            while data:
                while link in self.silent and not self.closed:
                    time.sleep(LOOK_S)
                target.sendall(data)
                data = source.recv(FIRST_BYTES)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut(self, links: Sequence[Link]) -> None:
        """Say nothing more on these."""
        self.silent |= set(links)

    def break_off(self, links: Sequence[Link]) -> None:
        """Close what is open between the two, and take nothing new."""
        self.broken |= set(links)
        for link, one in list(self.open):
            if link in self.broken:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """All links are whole."""
        self.silent, self.broken = set(), set()

    def close(self) -> None:
        self.closed = True
        self.mend()
        for listener in self.listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for _, one in self.open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
