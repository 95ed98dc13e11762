"""``headwater version``."""

from __future__ import annotations

import platform

import click

import headwater
from headwater.cli import show
from headwater.cli.client import json_option


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    told = {"headwater": headwater.__version__, "python": platform.python_version()}
    if as_json:
        show.as_json(told)
    else:
        click.echo(f"headwater {told['headwater']} (Python {told['python']})")
