"""``headwater restore``."""

from __future__ import annotations

import os
import shlex

import click

from headwater.cli import show
from headwater.cli.backup import holds
from headwater.cli.client import DATA_DEFAULT, json_option
from headwater.cli.progress import Progress, size
from headwater.kit.happenings import wall_text


@click.command()
@click.argument("backup", metavar="BACKUP")
@click.option(
    "--data",
    envvar="HEADWATER_DATA",
    default=DATA_DEFAULT,
    show_default=True,
    metavar="DIR",
    help="The data folder to make; new or empty. [env: HEADWATER_DATA]",
)
@click.option(
    "--check", is_flag=True, help="Only verify the backup; nothing is written. Exit code 1: it is not whole."
)
@json_option
def restore(backup: str, data: str, check: bool, as_json: bool) -> None:
    """Make a data folder from a backup, after every byte of it was verified.

    DIR must be new or empty. It becomes a data folder only when all of the backup is in it and right.

    \b
    headwater restore --check /backups/monday.tar.zst
    headwater restore /backups/monday.tar.zst --data /var/lib/headwater

    Never run the restored folder and the one it is a copy of at the same time.
    """
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.kit.errors import Rejected
    from headwater.node import restore as restoring

    clock = SystemClock()
    progress = Progress(clock)
    data = os.path.abspath(data)
    try:
        if check:
            manifest = restoring.check(backup, progress)
        else:
            manifest = restoring.restore(backup, data, SystemDisk(), clock, progress)
    except Rejected as error:
        progress.clear()
        if not check:
            raise
        show.answer_no(str(error))
    finally:
        progress.clear()
    if as_json:
        show.as_json(restoring.told(manifest))
        return
    facts, bytes_ = manifest.facts, sum(one.size for one in manifest.files)
    click.echo(f"{backup} is whole: {len(manifest.files)} files, {size(bytes_)}")
    click.echo(f"made {wall_text(manifest.head.began_ns)} by Headwater {manifest.head.version}")
    click.echo(holds(facts.events, facts.until_ns, manifest.inside))
    if not check:
        next_steps(data, manifest.configuration, manifest.outside)


def next_steps(data: str, configuration: str, outside: list[str]) -> None:
    """What to do with a restored folder."""
    config = f" --config {shlex.quote(configuration)}" if configuration else ""
    click.echo(f"restored to {data}; what to do next:")
    click.echo("  1. see that no node runs on the folder it is a copy of")
    click.echo(f"  2. headwater check{config} --data {shlex.quote(data)}")
    click.echo(f"  3. headwater run{config} --data {shlex.quote(data)}")
    click.echo(f"  4. headwater reconcile --data {shlex.quote(data)}")
    for name in outside:
        click.echo(
            f"  {name} is no part of the backup: `headwater status` says where it stands and what to do"
        )
