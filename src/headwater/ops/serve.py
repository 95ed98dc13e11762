"""The ops listener on uvicorn: once on TCP behind its guard, once on the unix socket for commands of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from headwater.kit import ask
from headwater.kit.ask import short_path
from headwater.kit.errors import Unavailable
from headwater.ops import app, cluster
from headwater.ops.guard import Guard
from headwater.ops.look import LOOK, Look
from headwater.ops.peers import Peers
from headwater.ops.settings import OpsSettings, host_and_port

BACKLOG = 128
STOP_WAIT_S = 1


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the role has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class OpsServer:
    """Both listeners."""

    def __init__(
        self, look: Look, settings: OpsSettings, *, clustered: bool = False, admin_token: str = ""
    ) -> None:
        """``clustered``: the node has a cluster block; ``admin_token`` is the cluster's, empty for none."""
        self.look = look
        self.settings = settings
        self.clustered = clustered
        self.admin_token = admin_token
        self.servers: list[Server] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.peers: ask.Server | None = None

    async def start(self) -> None:
        """Listen; returns when both answer. OSError as the machine gives it."""
        paths = (*app.PATHS, *cluster.PATHS) if self.clustered else app.PATHS
        routes = app.Routes(self.look, self.settings, paths)
        application = app.make(self.look, self.settings, clustered=self.clustered, routes=routes)
        if self.clustered:
            self.peers = await ask.serve(f"{self.look.data}/run/{LOOK}.sock", Peers(self.look, routes).answer)
        host, _ = host_and_port("ops.listen", self.settings.listen)
        hosts = [host, *self.settings.hosts]
        outside = Guard(application, hosts, self.settings.token, trusted=False, admin_token=self.admin_token)
        inside = Guard(application, hosts, self.settings.token, trusted=True)
        await self.serve(outside, listen_tcp(self.settings.listen))
        await self.serve(inside, listen_unix(f"{self.look.data}/run/ops.sock"))

    async def serve(self, application: ASGIApp, listening: socket.socket) -> None:
        """One listener."""
        config = uvicorn.Config(
            application,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_WAIT_S,
            limit_concurrency=256,
            h11_max_incomplete_event_size=65_536,
        )
        server = Server(config)
        self.servers.append(server)
        task = asyncio.get_running_loop().create_task(server.serve(sockets=[listening]))
        self.tasks.append(task)
        while not server.started:
            if task.done():
                task.result()
                raise Unavailable("the ops listener ended at once", code="ops_listener")
            await asyncio.wait((task,), timeout=0.01)

    def check(self) -> None:
        """Raise what ended a listener."""
        for task in self.tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Stop listening; answers under way get a moment."""
        if self.peers is not None:
            await self.peers.close(STOP_WAIT_S)
        for server in self.servers:
            server.should_exit = True
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=STOP_WAIT_S + 1)
            for task in late:
                task.cancel()


def listen_tcp(listen: str) -> socket.socket:
    """A listening socket."""
    host, port = host_and_port("ops.listen", listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def listen_unix(path: str) -> socket.socket:
    """A unix socket that its owner alone may open; a stale file is replaced."""
    with short_path(path) as short:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(short)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(short)
        os.chmod(short, 0o600)
    listening.listen(BACKLOG)
    return listening
