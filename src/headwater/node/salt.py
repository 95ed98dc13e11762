"""The salt of address hashes (collect/address_hash.py): made, rotated and destroyed by the supervisor.

``run/address-salt.json`` {"period", "rotation_s", "salt"}, readable by its owner only. A period is a whole number of
``rotation_s`` since 1970 in UTC, so that a day is a day; a restart within a period goes on with its salt. The next
salt is drawn, not derived: once a period is over, nobody can compute its hashes again, this node included. Where no
key wants hashes, there is no salt. It lies in ``run/`` since backups leave that out, and a copy of the salt would
outlive its period.
"""

from __future__ import annotations

import contextlib

import msgspec

from headwater.config.running import write_private
from headwater.kit.disk import Disk, read_whole
from headwater.kit.rng import Rng
from headwater.node.settings import Settings

SALT_U64S = 4


class Salt(msgspec.Struct, frozen=True):
    """What the file holds."""

    period: int
    rotation_s: int
    salt: str
    """32 bytes in hex."""


def salt_path(data: str) -> str:
    """Where the salt lies."""
    return f"{data}/run/address-salt.json"


def read(disk: Disk, data: str) -> Salt | None:
    """The salt of the present period; None where there is none that can be read."""
    try:
        return msgspec.json.decode(read_whole(disk, salt_path(data)), type=Salt)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def salt_bytes(disk: Disk, data: str) -> bytes | None:
    """What hashes are keyed with."""
    found = read(disk, data)
    return None if found is None else bytes.fromhex(found.salt)


def wanted(settings: Settings) -> bool:
    """Whether the addresses of any key are hashed."""
    default = settings.collect.client_address
    return any((key.client_address or default) == "hashed" for key in settings.keys)


def keep(disk: Disk, data: str, settings: Settings, wall_ns: int, rng: Rng) -> bool:
    """Make, replace or destroy the salt as its time has come. True where it changed: collectors must read it again."""
    if not wanted(settings):
        gone = disk.exists(salt_path(data))
        if gone:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(salt_path(data))
        return gone
    rotation_s = settings.collect.address_salt_rotation_s
    period = wall_ns // (rotation_s * 1_000_000_000)
    found = read(disk, data)
    if found is not None and (found.period, found.rotation_s) == (period, rotation_s):
        return False
    salt = b"".join(rng.u64().to_bytes(8, "little") for _ in range(SALT_U64S))
    write_private(salt_path(data), Salt(period, rotation_s, salt.hex()))
    return True
