"""``headwater config explain``."""

from __future__ import annotations

import os

import click
import msgspec

from headwater.cli import show
from headwater.cli.client import config_option, data_option, json_option


@click.group()
def config() -> None:
    """What the configuration means."""


@config.command("explain")
@click.argument("key", default="")
@config_option
@data_option
@json_option
def explain_key(key: str, config_path: str, data: str, as_json: bool) -> None:
    """Say what KEY is set to, where that comes from, and what it means. Without KEY: every setting.

    \b
    headwater config explain collect.listen
    headwater config explain keys[0].ack
    headwater config explain destinations.warehouse
    """
    from headwater.config.explain import explain
    from headwater.node import configuration

    found = configuration.read(config_path, os.path.abspath(data), os.environ)
    told = explain(found.settings, found.document, key)
    if as_json:
        show.as_json(told)
        return
    for one in told:
        click.echo(click.style(one.key, bold=True) + f" = {value_text(one.value)}")
        click.echo(f"  from {one.source}; default {value_text(one.default)}; {one.type}")
        if one.meaning:
            click.echo(click.wrap_text(one.meaning, 100, "  ", "  "))


def value_text(value: object) -> str:
    """A value as it would stand in the file."""
    return msgspec.json.encode(value).decode()
