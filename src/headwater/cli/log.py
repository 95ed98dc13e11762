"""``headwater log``."""

from __future__ import annotations

import os

import click

from headwater.cli import show
from headwater.cli.client import data_option, json_option
from headwater.kit.plural import counted


@click.group()
def log() -> None:
    """The raw and the ready log, as they lie on disk. Works while the node runs, and when it does not."""


@log.command()
@data_option
@json_option
@click.option("--problems", is_flag=True, help="Only segments with a problem.")
def inspect(data: str, as_json: bool, problems: bool) -> None:
    """Read every segment, compressed ones too, and verify every block. Exit code 1 when something is wrong.

    `used bytes` are those of its blocks as they were written, `on disk` is what the file takes.

    \b
    headwater log inspect
    headwater log inspect --problems --json
    """
    from headwater.kit.disk import SystemDisk
    from headwater.log import inspect as inspecting
    from headwater.node.folder import open_folder

    disk = SystemDisk()
    folder = open_folder(os.path.abspath(data), disk)
    found = []
    for part in ("raw", "ready"):
        for name in disk.listdir(f"{folder.path}/{part}"):
            found += inspecting.inspect(disk, f"{folder.path}/{part}/{name}", folder.secret)
    shown = [one for one in found if one.problems or not problems]
    if as_json:
        show.as_json(shown)
    elif not shown:
        click.echo(f"no problems in {counted(len(found), 'segment')}" if problems else "no segments")
    else:
        columns = ("segment", "holds", "blocks", "used bytes", "on disk", "problems")
        show.as_table(
            columns,
            (
                [
                    os.path.relpath(one.path, folder.path),
                    held(os.path.relpath(one.path, folder.path), one.first_seq, one.next_seq),
                    one.blocks,
                    one.used_bytes,
                    f"{one.bytes}, compressed" if one.compressed else one.bytes,
                    "; ".join(one.problems),
                ]
                for one in shown
            ),
        )
    if wrong := [one for one in found if one.problems]:
        have = "has" if len(wrong) == 1 else "have"
        show.answer_no(f"{len(wrong)} of {counted(len(found), 'segment')} {have} a problem")


def held(path: str, first: int, following: int) -> str:
    """The numbers in a segment, as one says them: a raw log counts events, a ready log its blocks."""
    unit = "event" if path.startswith("raw/") else "block"
    if first == following:
        return "nothing"
    return f"{unit} {first}" if following == first + 1 else f"{unit}s {first} to {following - 1}"
