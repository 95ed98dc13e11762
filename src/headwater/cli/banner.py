"""What ``headwater run`` says once the door is open: where, with which key, and what to try first."""

from __future__ import annotations

import os
import shutil
import sys

import click

from headwater.cli.client import data_words
from headwater.collect.keys import secrets_of
from headwater.node.settings import secret_reader
from headwater.node.start import Prepared

QUERY = '"select event, count(*) from events group by 1"'


def show(prepared: Prepared) -> None:
    """Print it; in colour on a terminal."""
    for line in lines(prepared):
        click.echo(line)


def show_drain() -> None:
    """What a person sees after Ctrl-C."""
    click.echo(
        "\n  Draining: what was accepted is processed and delivered. Ctrl-C again stops at once, without loss."
    )


def lines(prepared: Prepared) -> list[str]:
    """The lines, styled; click takes the style away where there is no terminal."""
    info, settings = prepared.info, prepared.settings
    data = prepared.folder.path
    key_id, secret, generated = first_key(prepared)
    title = click.style("Headwater", bold=True, fg="cyan") + f" {info.version} is running."
    told = ["", f"  {title}  Ctrl-C drains and stops it.", ""]
    told += [row("made", ", ".join(prepared.made))] if prepared.made else []
    told += [row("collector", info.collector)]
    if secret:
        told += [row("write key", f"{secret if generated else '(see the configuration)'}  ({key_id})")]
        told += [row("try", curl(info.collector, secret if generated else "YOUR_WRITE_KEY"))]
    else:
        told += [
            row("keys", click.style("none: nobody can send. `headwater keys new ID` makes one", fg="yellow"))
        ]
    if settings.ops.demo and not settings.ops.token and secret:
        told += [row("demo", click.style(f"{info.ops}/demo", bold=True))]
    if settings.destinations:
        told += [row("ask", f"{program()} sql{data_words(data)} {QUERY}")]
    else:
        told += [row("where to", click.style("no destinations: events are kept in the log", fg="yellow"))]
    return [*told, row("data", os.path.relpath(data)), ""]


def program() -> str:
    """The command as it can be typed here."""
    started = sys.argv[0] if sys.argv else ""
    if os.path.basename(started) != "headwater" or shutil.which("headwater"):
        return "headwater"
    return os.path.relpath(started)


def row(name: str, text: str) -> str:
    """One line."""
    return f"  {click.style(f'{name:<10}', dim=True)} {text}"


def curl(collector: str, secret: str) -> str:
    """One line that sends an event."""
    body = '{"type":"track","event":"Hello","anonymousId":"me","properties":{"price":9.5}}'
    return (
        f"curl {collector}/events -H 'X-Write-Key: {secret}' -H 'Content-Type: application/json' -d '{body}'"
    )


def first_key(prepared: Prepared) -> tuple[str, str, bool]:
    """Id and secret of the first browser key (else the first), and whether Headwater generated it.

    Only a generated one is printed: it lies in the data folder anyway, and pages carry it. One that was given in the
    configuration or the environment may be a server's.
    """
    keys = prepared.settings.keys
    if not keys:
        return "", "", False
    key = next((key for key in keys if key.browser), keys[0])
    secret = next(iter(secrets_of(key, secret_reader(prepared.folder.path))), "")
    return key.id, secret, bool(key.secret_file) and key.browser
