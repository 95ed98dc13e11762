"""Who is running: ``run/node.json`` (written once the node has its lock) and ``run/config.json`` (what it runs with).

Both are written by the supervisor alone. ``config.json`` holds secrets and has mode 0600; ``node.json`` holds none.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import msgspec

from headwater.kit.disk import Disk, read_whole
from headwater.kit.errors import Unavailable

S = TypeVar("S", bound=msgspec.Struct)


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a command or the ops process has to know of the running node."""

    pid: int
    start: int
    version: str
    folder_id: str
    partitions: int
    started_wall_ns: int
    collector: str
    """Address of the collector as a URL."""
    ops: str
    """Address of the ops listener as a URL."""
    configuration: str
    """Path of the configuration file."""


def node_path(data: str) -> str:
    """Where ``NodeInfo`` lies."""
    return f"{data}/run/node.json"


def config_path(data: str) -> str:
    """Where the resolved settings lie."""
    return f"{data}/run/config.json"


def ops_socket(data: str) -> str:
    """Where the ops process answers trusted callers."""
    return f"{data}/run/ops.sock"


def write_private(path: str, value: Any) -> None:
    """Replace a file of the run folder whole; readable by its owner only."""
    draft = f"{path}.tmp"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, 0o600)
        os.write(file, msgspec.json.encode(value))
    finally:
        os.close(file)
    os.rename(draft, path)


def read_node(data: str, disk: Disk) -> NodeInfo:
    """Who runs on this data folder. Unavailable where nobody ever did, or not in this version."""
    try:
        return msgspec.json.decode(read_whole(disk, node_path(data)), type=NodeInfo)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise Unavailable(
            f"no node runs on {data}", code="no_node", help="name its data folder with --data, or start it"
        ) from error


def read_settings(data: str, disk: Disk, kind: type[S]) -> S:
    """The resolved settings of the running node."""
    return msgspec.json.decode(read_whole(disk, config_path(data)), type=kind)
