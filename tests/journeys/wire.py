"""HTTP by hand: bytes out, answers in, over one socket that is not polite unless a test is."""

from __future__ import annotations

import socket
import time
from types import TracebackType

from tests.journeys.running import Answer


class Wire:
    """One connection. Everything that waits has a limit; a peer that closes or resets is the end of answers."""

    def __init__(self, port: int, timeout_s: float = 5) -> None:
        self.timeout_s = timeout_s
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.received = b""
        self.ended = False

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """False when the peer has closed before it had everything."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def half_close(self) -> None:
        """No more from here."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def answer(self, *, head: bool = False, timeout_s: float | None = None) -> Answer | None:
        """The next answer; None when the connection ends, or the time is over, before a whole one is there."""
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            parsed = parse(self.received, head=head)
            if parsed is not None:
                found, self.received = parsed
                return found
            if not self.more(end):
                return None

    def answers(self, timeout_s: float | None = None) -> list[Answer]:
        """All answers until the peer closes or the time is over."""
        found = []
        while (answer := self.answer(timeout_s=timeout_s)) is not None:
            found.append(answer)
        return found

    def closed_within(self, seconds: float) -> bool:
        """Whether the peer closes in that time; what it says before is dropped."""
        end = time.monotonic() + seconds
        while not self.ended and self.more(end):
            pass
        return self.ended

    def more(self, end: float) -> bool:
        """Read what is there before ``end``; False when nothing came."""
        if self.ended:
            return False
        left = end - time.monotonic()
        if left <= 0:
            return False
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        self.ended = not data
        self.received += data
        return bool(data)


def parse(data: bytes, *, head: bool = False) -> tuple[Answer, bytes] | None:
    """One answer at the start of ``data`` and what follows it. AssertionError when it is no HTTP."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0"), first
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"{name} stands twice in {lines}"
        headers[name.lower()] = value.strip()
    bare = head or status in ("100", "204", "304")
    length = 0 if bare else int(headers["content-length"])
    body = data[end + 4 : end + 4 + length]
    if len(body) < length:
        return None
    return Answer(int(status), headers, body), data[end + 4 + length :]


def request(
    body: bytes = b"{}",
    *more: str,
    path: str = "/events",
    method: str = "POST",
    key: str = "wk_test_browser_0123456789",
    length: int | None = None,
) -> bytes:
    """A well-formed request, with more header lines."""
    lines = [f"{method} {path} HTTP/1.1", "Host: collector.test", f"X-Write-Key: {key}", *more]
    if length is None or length >= 0:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
