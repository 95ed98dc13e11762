"""A PostgreSQL server of the tests' own: initdb and postgres as an unprivileged user, on a free port of loopback.

One server serves a whole run (the fixture `postgres` of tests/conftest.py); each test takes a schema of its own.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.parts import free_port, require_part

START_S = 30.0
USER = "postgres"


@dataclass
class Server:
    """A server that runs."""

    port: int
    names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, user: str = USER, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def schema(self) -> str:
        """A name that no other test uses."""
        return f"hw_{next(self.names)}"

    def connect(self, **more: Any) -> Any:
        """A connection in autocommit, as superuser."""
        import psycopg

        return psycopg.connect(self.url(), autocommit=True, **more)

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, none where it has none."""
        with self.connect() as base:
            cursor = base.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


def run_as() -> dict[str, Any]:
    """Whom the server runs as: it refuses root."""
    if os.getuid():
        return {}
    user = pwd.getpwnam(USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def started() -> Iterator[Server]:
    """A server, stopped and deleted afterwards; the test is skipped where there is none to start."""
    programs = require_part("postgres").parent
    who = run_as()
    folder = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))
    if who:
        os.chown(folder, who["user"], who["group"])
    data = folder / "data"
    make = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        USER,
        "-N",
        "-E",
        "UTF8",
        "--no-locale",
    ]
    try:
        subprocess.run(make, check=True, cwd=folder, stdout=subprocess.DEVNULL, **who)
        yield from serve(programs, data, folder, who)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def serve(programs: Path, data: Path, folder: Path, who: dict[str, Any]) -> Iterator[Server]:
    """Run it until the generator goes on."""
    port = free_port()
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=60")
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
    command += [part for setting in settings for part in ("-c", setting)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **who)
    try:
        wait_ready(port, process, folder / "log")
        yield Server(port)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it takes connections."""
    import psycopg

    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(psycopg.Error), psycopg.connect(Server(port).url(), connect_timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(f"postgres did not start: {log.read_text(errors='replace')[-2000:]}")


class Proxy:
    """Passes bytes between clients and a server, and cuts the connection on which ``cut_at`` is sent (b"COMMIT");
    ``deliver`` says whether the server still gets that."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.cut_at = b""
        self.deliver = False
        self.cuts = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.open: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.spawn(self.accept)

    def spawn(self, run: Any, *values: Any) -> None:
        thread = threading.Thread(target=run, args=values, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self.open += [client, server]
                self.spawn(self.forward, client, server, True)
                self.spawn(self.forward, server, client, False)

    def forward(self, source: socket.socket, target: socket.socket, sends: bool) -> None:
        """One direction, until an end closes or the cut."""
        with suppress(OSError):
            while data := source.recv(65536):
                if sends and self.cut_at and self.cut_at in data:
                    self.cut_at, self.cuts = b"", self.cuts + 1
                    self.cut(source, target, data if self.deliver else b"")
                    return
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut(self, client: socket.socket, server: socket.socket, last: bytes) -> None:
        """The client hears nothing more; the server gets ``last``."""
        client.shutdown(socket.SHUT_RDWR)
        if last:
            server.sendall(last)
            time.sleep(0.3)  # for it to be carried out
        server.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        for one in self.open:
            one.close()
