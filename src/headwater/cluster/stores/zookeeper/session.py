"""A session with the ensemble, from an event loop: kazoo works in threads of its own.

Nothing is asked while there is no connection: kazoo would keep the request and send it when there is one, long after
its caller gave up. A call therefore waits for the connection first, all within its deadline.

What a session keeps (own record, lease, locks: *ephemeral* nodes) the ensemble removes when it has not heard the
session for its timeout; that is what happens to a process that is gone or stopped. A process whose event loop hangs is
still heard, since kazoo's threads go on. For that there are ``Terms``: a thread of this process removes what was not
renewed within its time to live.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from kazoo.client import KazooClient, KazooState
from kazoo.security import make_digest_acl

from headwater.cluster.stores.address import Target
from headwater.cluster.stores.settings import StoreSettings
from headwater.cluster.stores.zookeeper.errors import DRIVER
from headwater.kit.clock import Clock
from headwater.kit.threads import Thread

T = TypeVar("T")
TERMS_INTERVAL_S = 0.1
REMOVE_S_MAX = 2.0
CLOSE_S_MAX = 2.0
QUIET = logging.getLogger("headwater.cluster.stores.zookeeper.driver")
"""kazoo's own log: its deepest level would hold the password, and its warnings repeat what calls say."""
QUIET.disabled = True


class Session:
    """One connection to the ensemble, made with the first call, kept and made anew by kazoo."""

    def __init__(self, settings: StoreSettings, target: Target, clock: Clock) -> None:
        self.client = client_of(settings, target)
        self.connected = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.terms = Terms(self.client, clock)
        self.stopped = asyncio.Event()
        self.thread: Thread | None = None

    @property
    def id(self) -> int:
        """What the ensemble calls this session; owner of its ephemeral nodes."""
        identity = self.client.client_id
        return int(identity[0]) if identity else 0

    async def ready(self) -> KazooClient:
        """The client, once there is a connection. Waits without end; the caller has the deadline."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
            self.client.add_listener(self._changed)
            self.client.start_async()
            self.thread = Thread("zookeeper terms")
            self.thread(self.terms.run)
        await self.connected.wait()
        return self.client

    async def close(self) -> None:
        """End the session, and with it all that it keeps, in ``CLOSE_S_MAX`` at most: an ensemble that hangs learns it
        by the session's timeout. Done in the thread, since kazoo waits for its own."""
        self.terms.ended = True
        thread, self.thread = self.thread, None
        if thread is not None:
            thread(self._stop)
            thread.close(0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await self.stopped.wait()

    def _stop(self) -> None:
        with suppress(*DRIVER):
            self.client.stop()
        with suppress(*DRIVER):
            self.client.close()
        self._in_loop(self.stopped.set)

    def _changed(self, state: str) -> None:
        """Called by kazoo, in its thread."""
        tell = self.connected.set if state == KazooState.CONNECTED else self.connected.clear
        self._in_loop(tell)

    def _in_loop(self, work: Callable[..., object], *values: object) -> None:
        assert self.loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(work, *values)

    def future(self, started: Any) -> asyncio.Future[Any]:
        """kazoo's asynchronous result as a future of the loop."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        started.rawlink(lambda result: self._in_loop(settle, future, result))
        return future


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Hand a result over to whoever still waits."""
    if future.done():
        return
    if result.exception is not None:
        future.set_exception(result.exception)
    else:
        future.set_result(result.value)


class Terms:
    """Until when this process said that what it keeps shall live, and the thread that keeps its word."""

    def __init__(self, client: KazooClient, clock: Clock) -> None:
        self.client = client
        self.clock = clock
        self.until: dict[str, tuple[int, bytes]] = {}
        self.guard = threading.Lock()
        self.ended = False

    def promise(self, path: str, value: bytes, ttl_s: float) -> None:
        """``value`` at ``path`` shall live ``ttl_s`` from now on. Called before it is written: a write whose outcome
        is not known must end too."""
        with self.guard:
            self.until[path] = (self.clock.boot_ns() + int(ttl_s * 1e9), value)

    def forget(self, path: str) -> None:
        """It was removed."""
        with self.guard:
            self.until.pop(path, None)

    def run(self) -> None:
        """Keep the word that was given, until ``ended``. In a thread of its own."""
        while not self.ended:
            for path, (until_ns, value) in list(self.until.items()):
                if self.clock.boot_ns() >= until_ns:
                    with suppress(*DRIVER):  # no connection: again with the next round
                        self._remove(path, value)
                        self._done(path, until_ns)
            self.clock.block(TERMS_INTERVAL_S)

    def _remove(self, path: str, value: bytes) -> None:
        if self.client.state != KazooState.CONNECTED:
            raise TimeoutError
        if self.client.exists_async(path).get(timeout=REMOVE_S_MAX) is None:
            return
        found, stat = self.client.get_async(path).get(timeout=REMOVE_S_MAX)
        if found == value and stat.ephemeralOwner == self.client.client_id[0]:
            self.client.delete_async(path, stat.version).get(timeout=REMOVE_S_MAX)

    def _done(self, path: str, until_ns: int) -> None:
        with self.guard:
            if path in self.until and self.until[path][0] == until_ns:
                del self.until[path]


def client_of(settings: StoreSettings, target: Target) -> KazooClient:
    """kazoo's client, not yet started."""
    digest = (target.user, target.password)
    return KazooClient(
        hosts=",".join(map(str, target.addresses)),
        timeout=settings.session_timeout_s,
        auth_data=[("digest", ":".join(digest))] if target.user else None,
        default_acl=[make_digest_acl(*digest, all=True)] if target.user else None,
        logger=QUIET,
        use_ssl=target.tls,
        ca=settings.tls_ca_file or None,
        certfile=settings.tls_cert_file or None,
        keyfile=settings.tls_key_file or None,
        verify_certs=not settings.tls_skip_verify,
        check_hostname=target.tls and not settings.tls_skip_verify,
    )
