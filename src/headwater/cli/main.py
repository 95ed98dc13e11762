"""``headwater``: the group of all commands. Each command's module is imported when it is used, so that help is quick.

Exit codes, of every command: 0 fine · 1 the answer is no · 2 wrong usage or configuration · 3 the node does not answer.
"""

from __future__ import annotations

import importlib
import platform
from typing import Any

import click

import headwater
from headwater.kit.errors import Busy, HeadwaterError, Unavailable

COMMANDS = {
    "run": ("headwater.cli.run", "run"),
    "sql": ("headwater.cli.sql", "sql"),
    "status": ("headwater.cli.status", "status"),
    "where": ("headwater.cli.status", "where"),
    "reconcile": ("headwater.cli.reconcile", "reconcile"),
    "explain": ("headwater.cli.explain", "explain"),
    "check": ("headwater.cli.check", "check"),
    "config": ("headwater.cli.config", "config"),
    "keys": ("headwater.cli.keys", "keys"),
    "dead": ("headwater.cli.dead", "dead"),
    "replay": ("headwater.cli.replay", "replay"),
    "identity": ("headwater.cli.identity", "identity"),
    "destination": ("headwater.cli.destination", "destination"),
    "cluster": ("headwater.cli.cluster", "cluster"),
    "log": ("headwater.cli.log", "log"),
    "completion": ("headwater.cli.completion", "completion"),
    "backup": ("headwater.cli.backup", "backup"),
    "restore": ("headwater.cli.restore", "restore"),
    "version": ("headwater.cli.version", "version"),
}
"""In the order in which a new user meets them."""
NO_ANSWER, WRONG_USAGE = 3, 2


class Commands(click.Group):
    """Commands by name, imported late; errors of ours as one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadwaterError as error:
            click.echo(f"headwater: {error}", err=True)
            ctx.exit(NO_ANSWER if isinstance(error, Unavailable | Busy) else WRONG_USAGE)


VERSION = f"headwater {headwater.__version__} (Python {platform.python_version()})"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(headwater.__version__, message=VERSION, help="Print the version.")
def main() -> None:
    """Headwater collects events, keeps every one that it acknowledged, and lands each once in the warehouse.

    \b
    Start here:
      headwater run                      a node with embedded defaults, a write key and a demo page
      headwater sql "from events"        what has arrived, read from the warehouse
      headwater status                   what runs, and what does not

    Commands that speak with a running node find it by its data folder: --data DIR, or HEADWATER_DATA, or
    ./headwater-data. Exit codes: 0 fine, 1 the answer is no, 2 wrong usage, 3 the node does not answer.
    """
