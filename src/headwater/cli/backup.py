"""``headwater backup``."""

from __future__ import annotations

import os

import click

from headwater.cli import show
from headwater.cli.client import data_option, json_option
from headwater.cli.progress import Progress, size
from headwater.kit.happenings import wall_text
from headwater.kit.plural import counted

NICE = 10


@click.command()
@click.argument("target", metavar="TARGET")
@data_option
@json_option
def backup(target: str, data: str, as_json: bool) -> None:
    """Copy the whole data folder into one file, while the node runs or when it is stopped.

    Every event that was acknowledged before this began is in it, with all that makes a restored node go on without
    losing or doubling one. TARGET is a name that ends with .tar.zst (or .tar), or a folder that is there: then the
    file gets a name with the time. Nothing is overwritten. The file holds secrets (mode 0600). The configuration and
    destinations outside of the data folder are no part of it.

    \b
    headwater backup /backups/monday.tar.zst
    headwater backup /backups --data /var/lib/headwater
    headwater restore --check /backups/monday.tar.zst

    Delivery into a DuckDB file in the data folder waits while that file is copied; accepting goes
    on, and shares the disk. Run it as the user of the node.
    """
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.node.backup import Backup

    clock = SystemClock()
    progress = Progress(clock)
    os.nice(NICE)
    try:
        done = Backup(os.path.abspath(data), SystemDisk(), clock, progress).make(target)
    finally:
        progress.clear()
    if as_json:
        show.as_json(done)
        return
    click.echo(
        f"{done.path}: {size(done.bytes)} in {show.time(done.seconds)}, holds {size(done.holds_bytes)}"
    )
    click.echo(holds(done.facts.events, done.facts.until_ns, done.inside))
    for name, waited_ms in done.delivery_waited_ms.items():
        click.echo(f"delivery to {name} waited {show.time(waited_ms / 1000)}")
    if done.outside:
        click.echo(f"not in it, because it is elsewhere: {', '.join(done.outside)}")
    if done.configuration:
        click.echo(f"not in it: the configuration, {done.configuration}. Keep a copy beside the backup.")


def holds(events: int, until_ns: int, inside: list[str]) -> str:
    """What a backup holds, in a line."""
    until = f", the last one of {wall_text(until_ns)}" if until_ns else ""
    return f"{counted(events, 'accepted event')}{until}" + "".join(f"; destination {name}" for name in inside)
