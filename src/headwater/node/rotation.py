"""Giving a generated key a new secret: two are valid for a time, then one.

``keys/<id>.secret`` holds one secret on each line, the new one first. ``keys/<id>.until`` holds the wall time (ns) at
which the old one ends. It is written first, so that a crash never leaves two secrets without an end. The command line
begins; the supervisor ends when the time has come, or the command line does so earlier.
"""

from __future__ import annotations

import os
import re

from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Rejected
from headwater.kit.rng import Rng
from headwater.node.first import new_secret, secret_path

UNTIL = ".until"
SPAN = re.compile(r"(\d{1,9})([smhd])")
SPAN_DAYS_MAX = 365
"""An old secret that is valid for longer is not being replaced."""
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def span_s(text: str) -> int:
    """``90s``, ``30m``, ``24h``, ``7d`` in seconds. Rejected for anything else, and for more than a year."""
    match = SPAN.fullmatch(text)
    if match is None:
        raise Rejected(f"not a span of time: {text!r}", code="span", help="write it like 30m, 24h or 7d")
    seconds = int(match[1]) * UNITS_S[match[2]]
    if seconds > SPAN_DAYS_MAX * UNITS_S["d"]:
        raise Rejected(f"{text} is too long: expected at most {SPAN_DAYS_MAX}d", code="span")
    return seconds


def begin(disk: Disk, data: str, key_id: str, until_ns: int, rng: Rng) -> None:
    """Give the key a second secret; the old one ends at ``until_ns``. Durable on return. Rejected while it has two."""
    path = secret_path(data, key_id)
    secrets = read_secrets(disk, path)
    if len(secrets) > 1:
        raise Rejected(
            f"a rotation of {key_id!r} is under way: it has two secrets", code="rotation_under_way"
        )
    write_whole(disk, until_path(data, key_id), str(until_ns).encode())
    write_secrets(path, [new_secret(rng), *secrets])


def finish(disk: Disk, data: str, key_id: str) -> None:
    """End the old secret. Durable on return. Rejected where there is none."""
    path = secret_path(data, key_id)
    secrets = read_secrets(disk, path)
    if len(secrets) < 2:
        raise Rejected(f"no rotation of {key_id!r} is under way: it has one secret", code="rotation_none")
    write_secrets(path, secrets[:1])
    forget(disk, data, key_id)


def finish_overdue(disk: Disk, data: str, now_ns: int) -> list[str]:
    """End the old secrets whose time has come; the ids of their keys."""
    finished = []
    for name in disk.listdir(f"{data}/keys"):
        key_id = name.removesuffix(UNTIL)
        end_ns = until(disk, data, key_id) if name != key_id else None
        if end_ns is None or end_ns > now_ns:
            continue
        if disk.exists(secret_path(data, key_id)) and len(read_secrets(disk, secret_path(data, key_id))) > 1:
            finish(disk, data, key_id)
            finished.append(key_id)
        else:
            forget(disk, data, key_id)
    return finished


def until(disk: Disk, data: str, key_id: str) -> int | None:
    """When the old secret of a key ends, wall time in ns; None where nothing says so."""
    path = until_path(data, key_id)
    text = read_whole(disk, path).decode(errors="replace") if disk.exists(path) else ""
    return int(text) if text.isdecimal() else None


def until_path(data: str, key_id: str) -> str:
    """Where the end of a key's old secret stands."""
    return f"{data}/keys/{key_id}{UNTIL}"


def forget(disk: Disk, data: str, key_id: str) -> None:
    """No old secret is left."""
    if disk.exists(until_path(data, key_id)):
        disk.unlink(until_path(data, key_id))
        disk.sync_dir(f"{data}/keys")


def read_secrets(disk: Disk, path: str) -> list[str]:
    """The lines of a file of secrets."""
    return read_whole(disk, path).decode().split()


def write_secrets(path: str, secrets: list[str]) -> None:
    """Replace a file of secrets, whole and durably, for its owner alone: a reader finds the old lines or the new."""
    draft = f"{path}.tmp"
    owner = os.stat(path)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(file, 0o600)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file, owner.st_uid, owner.st_gid)  # root rotates for the node's user
        os.write(file, "".join(f"{secret}\n" for secret in secrets).encode())
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(draft, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
