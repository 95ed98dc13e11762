"""``headwater keys``."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import signal
from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import Node, config_option, data_option, data_words, json_option
from headwater.kit.clock import Clock
from headwater.kit.errors import Misconfigured, Rejected, Unavailable

RELOAD_WAIT_S = 10.0
TAKE_OVER_S = 0.5
"""After the supervisor has reloaded, its processes look for it 20 times a second."""
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
    rows = [[*(key.get(name) for name in columns), rotation_text(key)] for key in found]
    show.as_table((*columns, "rotation"), rows)


def rotation_text(key: dict[str, Any]) -> str:
    """What a list of keys says about a rotation that is under way."""
    if (key.get("secrets") or 0) < 2:
        return ""
    if until := key.get("old_secret_until"):
        return f"under way: the old secret is valid until {until.replace('T', ' ').replace('Z', ' UTC')}"
    return "two secrets are valid"


@keys.command("new")
@click.argument("key_id", metavar="ID")
@click.option(
    "--origin", "origins", multiple=True, help="A page that may send with it: a browser key. Repeatable."
)
@config_option
@data_option
def new(key_id: str, origins: tuple[str, ...], config_path: str, data: str) -> None:
    """Make a secret for a new key ID, and say what to add to the configuration.

    The secret is written to keys/ID.secret in the data folder, readable by its owner only. Exit code 1 when there is
    such a key: in the running node, or in the configuration where none runs.

    \b
    headwater keys new shop --origin https://shop.example.com
    headwater keys new backend
    headwater keys new - > cluster.secret      # `-`: only print a secret, for cluster.secret_file or ops.token
    """
    from headwater.kit.disk import SystemDisk
    from headwater.kit.rng import SystemRng
    from headwater.node import first
    from headwater.node.folder import open_folder

    if key_id == "-":
        click.echo(first.new_secret(SystemRng()))
        return
    if not KEY_ID.fullmatch(key_id):
        raise Rejected(f"not a key id: {key_id!r}", help="1 to 64 letters, digits, `_`, `-` or `.`")
    for origin in origins:
        check_origin(origin)
    folder = open_folder(os.path.abspath(data), SystemDisk())
    running = running_keys(Node(data))
    if key_id in (running[1] if running else keys_that_can_be_read(config_path, data)):
        renew = f"headwater keys rotate {key_id}{data_words(data)}"
        show.answer_no(f"there is a key {key_id!r} already; `{renew}` gives it a new secret")
    path = first.write_secret(folder.path, key_id, SystemRng())
    origin_line = f"\n    origins: [{', '.join(f'{origin!r}' for origin in origins)}]" if origins else ""
    then = f"reload with\n{reload_hint(data)}" if running else "start the node:"
    click.echo(f"The secret is in {os.path.relpath(path)}. Add this below `keys:`, then {then}\n")
    click.echo(f"  - id: {key_id}\n    secret_file: keys/{key_id}.secret{origin_line}")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old secret stays valid: 30m, 24h, 7d; 365d at most.",
)
@click.option("--finish", is_flag=True, help="End the old secret now, before its time.")
@config_option
@data_option
def rotate(key_id: str, grace: str, finish: bool, config_path: str, data: str) -> None:
    """Give the generated key ID a new secret, and refuse nobody meanwhile: the old one stays valid for a time.

    The running node takes it over at once, as by SIGHUP; the configuration is read only where none runs. A secret that
    stands in the configuration is not touched: it is said how to change it. Exit code 1 when nothing was rotated.

    \b
    headwater keys rotate web
    headwater keys rotate web --grace 7d
    headwater keys rotate web --finish
    """
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.kit.rng import SystemRng
    from headwater.node import rotation
    from headwater.node.folder import read_identity

    grace_s = rotation.span_s(grace)
    node, disk, clock = Node(data), SystemDisk(), SystemClock()
    read_identity(node.data, disk)
    running, files = running_keys(node) or configured_keys(config_path, data)
    if key_id not in files:
        show.answer_no(f"no key {key_id!r} here: there are {', '.join(sorted(files)) or 'none'}")
    if files[key_id] != f"keys/{key_id}.secret":
        click.echo(
            by_hand(key_id, files[key_id], running["node"]["configuration"] if running else config_path, data)
        )
        show.answer_no(f"nothing was rotated: Headwater did not make the secret of {key_id!r}")
    until_ns = clock.wall_ns() + grace_s * 1_000_000_000
    try:
        if finish:
            rotation.finish(disk, node.data, key_id)
        else:
            rotation.begin(disk, node.data, key_id, until_ns, SystemRng())
    except Rejected as error:
        finishing = (
            "" if finish else f"; end it with `headwater keys rotate {key_id} --finish{data_words(data)}`"
        )
        show.answer_no(f"{error}{finishing}")
    if running:
        take_over(node, running, clock)
    at = "It is valid" if running else "It is valid from the next start on"
    if finish:
        click.echo(
            f"The old secret of {key_id} is refused {'from now on' if running else 'from the next start on'}."
        )
    else:
        click.echo(
            f"The new secret of {key_id} is the first line of {os.path.relpath(node.data)}/keys/{key_id}.secret."
        )
        click.echo(f"{at}; the old one is, too, until {time_text(until_ns)}. Move the clients until then.")
        click.echo(f"To end it earlier: headwater keys rotate {key_id} --finish{data_words(data)}")


def check_origin(origin: str) -> None:
    """Rejected unless a key could have this origin."""
    from headwater.collect.settings import ORIGIN

    if not ORIGIN.fullmatch(origin.lower()):
        raise Rejected(
            f"--origin: expected `*`, `https://host[:port]` or `https://*.host` without a path, got {origin!r}",
            code="origin",
        )


def keys_that_can_be_read(config_path: str, data: str) -> dict[str, str]:
    """The keys of the configuration; none where it is not there, or wrong (its new key may lack its secret yet)."""
    try:
        return configured_keys(config_path, data)[1]
    except Misconfigured:
        return {}


def running_keys(node: Node) -> tuple[dict[str, Any], dict[str, str]] | None:
    """The status of the running node, and its keys with their files of secrets; None where no node answers."""
    try:
        status = node.get("/api/status")
        return status, {key["id"]: key["secret_file"] or "" for key in node.get("/api/keys")}
    except Unavailable:
        return None


def configured_keys(config_path: str, data: str) -> tuple[None, dict[str, str]]:
    """The keys of the configuration."""
    from headwater.node import configuration

    settings = configuration.read(config_path, os.path.abspath(data), os.environ).settings
    return None, {key.id: key.secret_file for key in settings.keys}


def take_over(node: Node, status: dict[str, Any], clock: Clock) -> None:
    """Have the running node read its secrets again; on return every process has. Answers no where it does not."""
    try:
        os.kill(status["node"]["pid"], signal.SIGHUP)
    except OSError as error:
        show.answer_no(
            f"the secrets are changed, but the node cannot be told: {error.strerror}; send it SIGHUP"
        )
    until_ns = clock.boot_ns() + int(RELOAD_WAIT_S * 1e9)
    while node.get("/api/status")["generation"] == status["generation"]:
        if clock.boot_ns() > until_ns:
            show.answer_no(
                "the secrets are changed, but the node did not reload: its log says why (reload_refused)"
            )
        clock.block(0.1)
    clock.block(TAKE_OVER_S)


def by_hand(key_id: str, file: str, configuration: str, data: str) -> str:
    """How to rotate a secret that somebody else keeps."""
    where = (
        f"in {file}, one on each line"
        if file
        else f"in {configuration}, `secret: [new, old]` for the key `{key_id}`"
    )
    return (
        f"The secret of {key_id} is yours, not Headwater's. To give it a new one without refusing anybody:\n"
        f"1. Give both {where}. A text like ${{env.NAME}} in it is read from the node's environment, and that\n"
        "   does not change while it runs: a new variable, or a new value, asks for a restart instead of a reload.\n"
        f"2. Reload: {reload_hint(data)}. Both are valid; move the clients to the new one.\n"
        "3. Take the old one out and reload again."
    )


def time_text(wall_ns: int) -> str:
    """A moment for people, UTC."""
    return f"{datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def reload_hint(data: str) -> str:
    """The command that reloads the node of a data folder."""
    return f"kill -HUP $(head -1 {shlex.quote(os.path.abspath(data))}/lock)"
