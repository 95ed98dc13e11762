"""One server process of a rig: started, stopped, frozen, killed, always ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

STOP_S = 10.0


class Server:
    """A program that runs in the foreground; what it says is in ``<folder>/said.log``."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command = list(command)
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.runs:
            with (self.folder / "said.log").open("ab") as said:
                self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=said, stderr=said)

    def stop(self) -> None:
        """End it in its own order."""
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without warning."""
        self.end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def said(self) -> str:
        """The end of what it said."""
        return (self.folder / "said.log").read_text("utf-8", "replace")[-2000:]


def never(said: bytes) -> bool:
    """The server closes the connection when it has said all."""
    return False


def ask(port: int, words: bytes, enough: Callable[[bytes], object] = never, timeout_s: float = 2.0) -> str:
    """What a server answers to plain words, until it closes or it is ``enough``; empty while it does not answer."""
    said = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(words)
            while not enough(said) and (part := connection.recv(65_536)):
                said += part
    except OSError:
        return ""
    return said.decode("utf-8", "replace")


def until(true: Callable[[], bool], within_s: float, why: Callable[[], str]) -> None:
    """Wait until it is so; the test fails, with the reason, when it is not in time."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s} s: {why()}"
        time.sleep(0.05)
