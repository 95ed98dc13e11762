"""``headwater run``."""

from __future__ import annotations

import sys

import click

from headwater.cli.client import files, folders


@click.command()
@click.option(
    "--config",
    envvar="HEADWATER_CONFIG",
    metavar="FILE",
    shell_complete=files,
    help="The configuration; without it headwater.yaml here, made at the first start. [env: HEADWATER_CONFIG]",
)
@click.option(
    "--data",
    envvar="HEADWATER_DATA",
    default="headwater-data",
    show_default=True,
    metavar="DIR",
    shell_complete=folders,
    help="The data folder, made at the first start. [env: HEADWATER_DATA]",
)
def run(config: str | None, data: str) -> None:
    """Run a node until Ctrl-C or SIGTERM.

    The first start makes what is missing: headwater.yaml, the data folder, and a write key. A second start goes on
    where the last one stopped, also after a crash.

    \b
    headwater run
    headwater run --config /etc/headwater/headwater.yaml --data /var/lib/headwater

    Ctrl-C (SIGTERM) drains: /ping fails, then after `shutdown_delay` the door closes, what was accepted is processed
    and delivered, exit code 0. A second Ctrl-C stops at once; nothing is lost, the next start goes on. SIGHUP reloads
    keys, destinations and enrichment. Under systemd (Type=notify) it says when events are accepted, and that it is
    alive (WatchdogSec=).
    """
    import asyncio
    import os

    from headwater.cli import banner
    from headwater.kit.clock import SystemClock
    from headwater.kit.counters import Counters
    from headwater.kit.disk import SystemDisk
    from headwater.kit.happenings import Happenings
    from headwater.kit.rng import SystemRng
    from headwater.node import configuration, start
    from headwater.node.service_manager import ServiceManager
    from headwater.node.supervise import Supervisor

    manager = ServiceManager.of(os.environ, os.getpid())
    disk, clock, rng = SystemDisk(), SystemClock(), SystemRng()
    prepared = start.prepare(config, data, disk, clock, rng, os.environ)
    supervisor = Supervisor(
        prepared,
        lambda: configuration.read(prepared.configuration.path, prepared.folder.path, os.environ),
        disk,
        clock,
        rng,
        Happenings("node", clock, Counters(), sys.stderr, least="warning" if sys.stderr.isatty() else "info"),
        on_ready=lambda: banner.show(prepared),
        on_drain=banner.show_drain,
        manager=manager,
    )
    sys.exit(asyncio.run(supervisor.run()))
