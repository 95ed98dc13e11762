"""One process of the node: started, watched, started again.

A process that ends unasked is started again after a wait that doubles, with jitter, and goes back to the shortest
after it lived for ``STABLE_S``. Before each start ``prepare`` does what must be done while it is not there: its log
is recovered and a new log id is handed out (INV-LOG-4).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from headwater.kit.clock import Clock
from headwater.kit.errors import HeadwaterError
from headwater.kit.happenings import Happenings
from headwater.kit.rng import Rng
from headwater.node.happenings import RoleCut, RoleEnded, RoleNotPrepared

WAIT_S_FIRST = 0.2
WAIT_S_MAX = 15.0
STABLE_S = 30.0
OFTEN = 3
OFTEN_S = 600.0
"""So many deaths within this time make the node not ready (protocol.md §2, EIO)."""
MODULE = "headwater.node.role"


class Spec(NamedTuple):
    """Which process: ``collect 0``, ``process 1``, ``deliver warehouse``, ``ops 0``."""

    role: str
    instance: str

    @property
    def name(self) -> str:
        """As in reports, sockets and logs."""
        return f"{self.role}-{self.instance}"


class Child:
    """A process that is kept running until ``stop``."""

    def __init__(
        self,
        spec: Spec,
        data: str,
        prepare: Callable[[], str],
        clock: Clock,
        rng: Rng,
        happenings: Happenings,
        *,
        lock_file: int | None = None,
        module: str = MODULE,
    ) -> None:
        self.spec = spec
        self.data = data
        self.prepare = prepare
        self.clock = clock
        self.rng = rng
        self.happenings = happenings
        self.lock_file = lock_file
        self.module = module
        self.state = "starting"
        self.process: asyncio.subprocess.Process | None = None
        self.began_ns = 0
        """When the process was started that is there now."""
        self.failures = 0
        self.restarts = 0
        self.deaths: deque[int] = deque(maxlen=OFTEN)
        self.stopping = asyncio.Event()
        self.gone = asyncio.Event()

    async def keep(self) -> None:
        """Run the process again and again until ``stop``."""
        try:
            while not self.stopping.is_set():
                await self.run_once()
        finally:
            self.state = "stopped"
            self.gone.set()

    async def run_once(self) -> None:
        """Prepare, start, wait for its end, and for the time until the next start."""
        self.state = "starting"
        try:
            log_id = await asyncio.to_thread(self.prepare)
        except (HeadwaterError, OSError) as error:
            self.happenings.emit(RoleNotPrepared(role=self.spec.name, reason=str(error)))
            await self.wait_after_failure()
            return
        if self.stopping.is_set():
            return
        self.began_ns = self.clock.boot_ns()
        self.process = await asyncio.create_subprocess_exec(
            *self.command(log_id),
            pass_fds=() if self.lock_file is None else (self.lock_file,),
            process_group=0,  # a Ctrl-C in the terminal is for the supervisor, who passes it on in order
            stdin=asyncio.subprocess.DEVNULL,
        )
        self.state = "running"
        if self.stopping.is_set():
            self.signal(signal.SIGTERM)
        code = await self.process.wait()
        if self.stopping.is_set():
            return
        now_ns = self.clock.boot_ns()
        self.deaths.append(now_ns)
        self.restarts += 1
        if now_ns - self.began_ns > STABLE_S * 1e9:
            self.failures = 0
        wait_s = self.wait_s()
        self.happenings.emit(RoleEnded(role=self.spec.name, exit_code=code, again_in_s=round(wait_s, 3)))
        await self.wait_after_failure(wait_s)

    def command(self, log_id: str) -> list[str]:
        """The command line; says which role it is to whoever reads ``ps``."""
        return [
            sys.executable,
            "-m",
            self.module,
            self.spec.role,
            self.spec.instance,
            f"--data={self.data}",
            f"--parent={os.getpid()}",
            f"--log={log_id}",
        ]

    def wait_s(self) -> float:
        """How long to wait now: doubling, half of it random."""
        ceiling = min(WAIT_S_MAX, WAIT_S_FIRST * 2.0 ** min(self.failures, 16))
        return ceiling * (0.5 + self.rng.below(1 << 20) / (1 << 21))

    async def wait_after_failure(self, wait_s: float | None = None) -> None:
        """Wait until the next start, or until there is none."""
        wait_s = self.wait_s() if wait_s is None else wait_s
        self.failures += 1
        self.state = "waiting"
        try:
            async with asyncio.timeout(wait_s):
                await self.stopping.wait()
        except TimeoutError:
            pass

    def ends_often(self) -> bool:
        """Whether it ended so often lately that a person must look."""
        recent = [at for at in self.deaths if self.clock.boot_ns() - at < OFTEN_S * 1e9]
        return len(recent) >= OFTEN

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is somebody to get it."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self, within_s: float) -> bool:
        """SIGTERM, and SIGKILL when it has not ended ``within_s`` later; False when it had to be killed."""
        self.stopping.set()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await self.gone.wait()
        except TimeoutError:
            self.happenings.emit(RoleCut(role=self.spec.name, after_s=within_s))
            self.signal(signal.SIGKILL)
            await self.gone.wait()
            return False
        return True
