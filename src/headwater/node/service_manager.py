"""What the supervisor tells systemd (sd_notify): ready, stopping, a line of status, and that it is alive.

Datagrams of ``NAME=value`` lines to the socket that ``$NOTIFY_SOCKET`` names (``@`` begins an abstract name); nothing
anywhere where it is not set. The three variables are taken out of the environment, so that the node's processes do not
speak for it. A datagram that finds the socket full is sent again with the next one; nobody ever waits for systemd.

``READY=1`` means that events are accepted. ``WATCHDOG=1`` goes twice in the time of ``WatchdogSec=``, but only while
the caller says that the node is alive: else systemd ends the node and starts it again.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from typing import Self

from headwater.kit.ask import short_path

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """systemd, or nobody (``address`` empty). ``watchdog_s``: WatchdogSec, 0 where there is none."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.address = address if address[:1] in ("/", "@") else ""
        self.interval_ns = int(watchdog_s * 1e9 / 2)
        self.pinged_ns = 0
        self.unsent: list[str] = []

    @classmethod
    def of(cls, environment: MutableMapping[str, str], pid: int) -> Self:
        """Who started this process, as the environment tells; it tells nobody after that."""
        address, watchdog_us, watched = (environment.pop(name, "") for name in VARIABLES)
        mine = watchdog_us.isdecimal() and watched in ("", str(pid))
        return cls(address, int(watchdog_us) / 1e6 if mine else 0.0)

    def tell(self, *lines: str) -> None:
        """Send lines, at once where there is room."""
        if self.address:
            self.unsent += lines
            self.flush()

    def look(self, now_ns: int, *, alive: bool) -> None:
        """Called several times a second: the ping, when it is its time and the node is alive."""
        if alive and self.interval_ns and now_ns - self.pinged_ns >= self.interval_ns:
            self.pinged_ns = now_ns
            self.tell("WATCHDOG=1")
        elif self.unsent:
            self.flush()

    def flush(self) -> None:
        """Send what is left. A socket that is gone takes nothing more, and what was meant for it is forgotten."""
        try:
            self.send("\n".join(self.unsent).encode())
        except BlockingIOError:
            return
        except OSError:
            pass
        self.unsent.clear()

    def send(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            if self.address.startswith("@"):
                sending.sendto(data, f"\0{self.address[1:]}")
                return
            with short_path(self.address) as path:
                sending.sendto(data, path)
