"""``headwater check``: is everything there that a node needs?"""

from __future__ import annotations

import os
import sys

import click

from headwater.cli import show
from headwater.cli.client import json_option

MARKS = {"fine": ("✓", "green"), "warning": ("!", "yellow"), "wrong": ("✗", "red")}


@click.command()
@click.option("--config", envvar="HEADWATER_CONFIG", default="headwater.yaml", show_default=True, metavar="FILE",
              help="The configuration. [env: HEADWATER_CONFIG]")  # fmt: skip
@click.option("--data", envvar="HEADWATER_DATA", default="headwater-data", show_default=True, metavar="DIR",
              help="The data folder. [env: HEADWATER_DATA]")  # fmt: skip
@json_option
def check(config: str, data: str, as_json: bool) -> None:
    """Check the configuration and this machine: disk, ports, limits. Exit code 1 when a node would not start.

    \b
    headwater check --config /etc/headwater/headwater.yaml --data /var/lib/headwater
    """
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.node.checks import everything

    found = everything(config, os.path.abspath(data), SystemDisk(), SystemClock(), os.environ)
    if as_json:
        show.as_json(found)
    else:
        for one in found:
            mark, colour = MARKS[one.result]
            click.echo(f"{click.style(mark, fg=colour)} {one.what}: {one.says}")
    sys.exit(1 if any(one.result == "wrong" for one in found) else 0)
