"""``headwater check``: is everything there that a node needs?"""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from headwater.cli import show
from headwater.cli.client import config_option, data_option, json_option

MARKS = {"fine": ("✓", "green"), "warning": ("!", "yellow"), "wrong": ("✗", "red")}


@click.command()
@config_option
@data_option
@json_option
@click.pass_context
def check(context: click.Context, config_path: str, data: str, as_json: bool) -> None:
    """Check the configuration and this machine: disk, ports, limits. Exit code 1 when a node would not start.

    Without --config and headwater.yaml, the configuration that `headwater run` would make is checked.

    \b
    headwater check --config /etc/headwater/headwater.yaml --data /var/lib/headwater
    """
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.node.checks import everything

    default = context.get_parameter_source("config_path") is ParameterSource.DEFAULT
    config = None if default else config_path
    found = everything(config, os.path.abspath(data), SystemDisk(), SystemClock(), os.environ)
    if as_json:
        show.as_json(found)
    else:
        for one in found:
            mark, colour = MARKS[one.result]
            click.echo(f"{click.style(mark, fg=colour)} {one.what}: {one.says}")
    if wrong := [one.what for one in found if one.result == "wrong"]:
        show.answer_no(f"a node would not start: {', '.join(wrong)}")
