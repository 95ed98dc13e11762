"""``headwater keys``."""

from __future__ import annotations

import os
import re

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, json_option
from headwater.kit.errors import Rejected

KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@click.group()
def keys() -> None:
    """Write keys: who may send events."""


@keys.command("list")
@data_option
@json_option
def list_keys(data: str, as_json: bool) -> None:
    """List the keys of the running node, without their secrets."""
    found = Node(data).get("/api/keys")
    if as_json:
        show.as_json(found)
        return
    columns = ("id", "kind", "origins", "ack", "secret_file")
    show.as_table(columns, ([key.get(name) for name in columns] for key in found))


@keys.command("new")
@click.argument("key_id", metavar="ID")
@click.option(
    "--origin", "origins", multiple=True, help="A page that may send with it: a browser key. Repeatable."
)
@data_option
def new(key_id: str, origins: tuple[str, ...], data: str) -> None:
    """Make a secret for a new key ID, and say what to add to the configuration.

    The secret is written to keys/ID.secret in the data folder, readable by its owner only.

    \b
    headwater keys new shop --origin https://shop.example.com
    headwater keys new backend
    """
    from headwater.kit.disk import SystemDisk
    from headwater.kit.rng import SystemRng
    from headwater.node import first
    from headwater.node.folder import open_folder

    if not KEY_ID.fullmatch(key_id):
        raise Rejected(f"not a key id: {key_id!r}", help="1 to 64 letters, digits, `_`, `-` or `.`")
    folder = open_folder(os.path.abspath(data), SystemDisk())
    path = first.write_secret(folder.path, key_id, SystemRng())
    origin_line = f"\n    origins: [{', '.join(f'{origin!r}' for origin in origins)}]" if origins else ""
    click.echo(f"The secret is in {os.path.relpath(path)}. Add this below `keys:`, then reload with")
    click.echo(f"{reload_hint(data)}\n")
    click.echo(f"  - id: {key_id}\n    secret_file: keys/{key_id}.secret{origin_line}")


@keys.command()
@click.argument("key_id", metavar="ID")
@data_option
def rotate(key_id: str, data: str) -> None:
    """Say how to give a key a new secret without refusing anybody."""
    click.echo(
        f"1. Add a second line with the new secret to {data}/keys/{key_id}.secret (or give `secret` as a list of\n"
        "   two): both are valid.\n"
        f"2. Reload: {reload_hint(data)}. Move the clients to the new secret.\n"
        "3. Remove the old line and reload again."
    )


def reload_hint(data: str) -> str:
    """The command that reloads the node of a data folder."""
    return f"kill -HUP $(head -1 {data}/lock)"
