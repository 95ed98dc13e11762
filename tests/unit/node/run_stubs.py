"""A supervisor over stub roles, as a process of its own: ``python -m tests.unit.node.run_stubs CONFIG DATA``."""

from __future__ import annotations

import asyncio
import os
import sys

from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.disk import SystemDisk
from headwater.kit.happenings import Happenings
from headwater.kit.rng import SystemRng
from headwater.node import configuration, start
from headwater.node.service_manager import ServiceManager
from headwater.node.supervise import Supervisor


def main(config: str, data: str) -> int:
    disk, clock, rng = SystemDisk(), SystemClock(), SystemRng()
    prepared = start.prepare(config, data, disk, clock, rng, os.environ)
    supervisor = Supervisor(
        prepared,
        lambda: configuration.read(config, data, os.environ),
        disk,
        clock,
        rng,
        Happenings("node", clock, Counters(), sys.stderr),
        on_ready=lambda: print("ready", flush=True),
        manager=ServiceManager.of(os.environ, os.getpid()),
        module="tests.unit.node.stub_role",
    )
    return asyncio.run(supervisor.run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
