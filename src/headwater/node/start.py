"""What happens before any process starts: find or make configuration and data folder, lock, check the ports.

Whatever is wrong is said here, in words, with exit code 2; later on only the machine can be to blame.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

import headwater
from headwater.cluster.settings import advertised
from headwater.config.running import NodeInfo
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, make_folders
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import Rng
from headwater.log.retain import folder_bytes
from headwater.node import configuration, first, listening
from headwater.node.configuration import Configuration
from headwater.node.folder import Folder, Lock, make_folder, take_lock
from headwater.node.settings import Settings, sized
from headwater.ops.settings import host_and_port
from headwater.peer import address


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a supervisor needs."""

    configuration: Configuration
    settings: Settings
    """With definite sizes."""
    folder: Folder
    lock: Lock
    info: NodeInfo
    made: list[str]
    """What the first start made, for the banner: paths and key ids."""


def prepare(
    config: str | None, data: str, disk: Disk, clock: Clock, rng: Rng, environment: Mapping[str, str]
) -> Prepared:
    """Lock the data folder and read the configuration, making what the first start lacks.

    ``config`` None: ``headwater.yaml`` here, made when it is missing. The start is counted, durably, on return.
    """
    made: list[str] = []
    data = os.path.abspath(data)
    path = config or configuration.CONFIGURATION_DEFAULT
    if config is None and not disk.exists(path):
        first.write_configuration(path, disk)
        made.append(path)
    new = not disk.exists(data)
    place(disk, data)
    lock = take_lock(data, clock)
    try:
        folder = make_folder(data, disk, rng)

        def make_secrets(settings: Settings) -> None:
            if folder.identity.starts == 0:
                made.extend(
                    first.write_missing_secrets(data, {k.id: k.secret_file for k in settings.keys}, rng)
                )

        found = configuration.read(path, data, environment, before_secrets=make_secrets)
        with found.document.placed():
            settings = sized(found.settings, disk.free_bytes(data), used_bytes(disk, data))
            check_ports(settings)
        info = describe(found, settings, folder, folder.count_start(), clock)
    except BaseException:
        if new:  # a start that was refused leaves nothing behind, and all that is there was made just now
            shutil.rmtree(data, ignore_errors=True)
        lock.release()
        raise
    return Prepared(found, settings, folder, lock, info, made)


def place(disk: Disk, data: str) -> None:
    """The folder, made with those above it. Misconfigured where it cannot be."""
    try:
        make_folders(disk, data)
        usable = os.path.isdir(data) and os.access(data, os.W_OK | os.X_OK)
    except OSError as error:
        raise Misconfigured(
            f"--data {data}: expected a folder, or a place to make one: {error.strerror or error}",
            code="data_folder",
        ) from error
    if not usable:
        raise Misconfigured(f"--data {data}: expected a folder that this user may write", code="data_folder")


def describe(found: Configuration, settings: Settings, folder: Folder, start: int, clock: Clock) -> NodeInfo:
    """What others are told about this start."""
    return NodeInfo(
        pid=os.getpid(),
        start=start,
        version=headwater.__version__,
        folder_id=folder.identity.folder_id,
        partitions=folder.identity.partitions,
        started_wall_ns=clock.wall_ns(),
        collector=url(settings.collect.listen),
        ops=url(settings.ops.listen),
        configuration=found.path,
    )


def url(listen: str) -> str:
    """How a browser on this machine reaches a listener."""
    host, port = host_and_port("listen", listen)
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def used_bytes(disk: Disk, data: str) -> int:
    """What the logs of a data folder take."""
    total = 0
    for part in ("raw", "ready"):
        if disk.exists(f"{data}/{part}"):
            total += sum(
                folder_bytes(disk, f"{data}/{part}/{name}") for name in disk.listdir(f"{data}/{part}")
            )
    return total


def listeners(settings: Settings) -> list[tuple[str, str, str, int]]:
    """Setting, what it says, host and port of every listener. Misconfigured: a binding fits nothing on this machine, or
    nobody could dial it."""
    found = [
        (field, listen, *host_and_port(field, listen))
        for field, listen in (
            ("collect.listen", settings.collect.listen),
            ("ops.listen", settings.ops.listen),
        )
    ]
    if (cluster := settings.cluster) is None:
        return found
    interfaces = address.machine_interfaces()
    for name, binding, default in (
        ("listen", cluster.listen, address.MEMBER_PORT),
        ("lane", cluster.lane, address.LANE_PORT),
    ):
        try:
            advertised(cluster, binding, default)
            found.append((f"cluster.{name}", binding, *address.resolve(binding, interfaces, default)))
        except Misconfigured as error:
            field = f"cluster.{name}"
            raise Misconfigured(
                f"{field}: {error.message}", code="listen", help=error.help, field=field
            ) from error
    return found


def check_ports(settings: Settings) -> None:
    """Misconfigured when a listener's address is taken or not of this machine."""
    for field, listen, host, port in listeners(settings):
        if (trouble := listening.trouble(host, port)) is not None:
            raise Misconfigured(
                f"{field}: cannot listen on {listen}: {trouble}",
                code="listen",
                help="stop what listens there, or give another address",
                field=field,
            )
