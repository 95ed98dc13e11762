"""``headwater log``."""

from __future__ import annotations

import os

import click

from headwater.cli import show
from headwater.cli.client import data_option, json_option


@click.group()
def log() -> None:
    """The raw and the ready log, as they lie on disk. Works while the node runs, and when it does not."""


@log.command()
@data_option
@json_option
@click.option("--problems", is_flag=True, help="Only segments with a problem.")
def inspect(data: str, as_json: bool, problems: bool) -> None:
    """Read every segment and verify every block. Exit code 1 when something is wrong.

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
    else:
        columns = ("segment", "events", "blocks", "used bytes", "problems")
        show.as_table(
            columns,
            (
                [
                    os.path.relpath(one.path, folder.path),
                    f"{one.first_seq}–{one.next_seq}",
                    one.blocks,
                    one.used_bytes,
                    "; ".join(one.problems),
                ]
                for one in shown
            ),
        )
    if wrong := [one for one in found if one.problems]:
        show.answer_no(f"{len(wrong)} of {len(found)} segments have a problem")
