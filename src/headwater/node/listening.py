"""Whether a listener's address is free, asked before any process starts; and who has it when it is not.

Collect workers share their port by SO_REUSEPORT. Whoever of the same user listens there in the same way, such as a
worker of a node that was lost sight of, would silently take part of the traffic. So the address is bound once *without*
it: that is refused while anybody listens. With SO_REUSEADDR, connections that only just ended (TIME_WAIT) do not count:
a restart right after a stop is fine.
"""

from __future__ import annotations

import contextlib
import os
import socket

PROC = "/proc"
LISTENING = "0A"
COMMAND_CHARACTERS_MAX = 60


def trouble(host: str, port: int) -> str | None:
    """Why nothing can listen at this address, with the process that does where it can be seen; None: it is free."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6 and host == "::":
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind(address)
                probe.listen(1)  # an address that is bound only may still be taken at this moment
    except OSError as error:
        what = error.strerror or str(error)
        pids = holders(port) if port else []
        return what + "".join(f": process {pid} ({command(pid)}) listens there" for pid in pids[:1])
    return None


def holders(port: int) -> list[int]:
    """The processes that listen on a port, as far as /proc tells it to this user."""
    wanted = {f"socket:[{inode}]" for inode in inodes(port)}
    return [pid for pid in processes() if wanted and wanted & files(pid)]


def inodes(port: int) -> set[str]:
    """The listening sockets of a port, at any address."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"{PROC}/net/{name}", encoding="ascii") as table:
            for line in list(table)[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[1].endswith(f":{port:04X}"):
                    found.add(fields[9])
    return found


def processes() -> list[int]:
    """All processes, this one left out."""
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir(PROC) if name.isdigit() and int(name) != os.getpid()]
    return []


def files(pid: int) -> set[str]:
    """What a process has open; nothing where it may not be seen, or is gone."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{PROC}/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"{PROC}/{pid}/fd/{name}"))
    return found


def command(pid: int) -> str:
    """How a process was started, cut short."""
    with contextlib.suppress(OSError), open(f"{PROC}/{pid}/cmdline", "rb") as file:
        words = file.read(1024).split(b"\0")
        words[0] = os.path.basename(words[0])
        text = " ".join(b" ".join(words).decode(errors="replace").split())
        return text if len(text) <= COMMAND_CHARACTERS_MAX else text[:COMMAND_CHARACTERS_MAX] + "…"
    return "?"
