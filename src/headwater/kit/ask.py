"""Requests between processes of one node: a JSON line and bytes, each way, over a unix socket.

::

    {"op": "sql", "query": "select 1", "bytes": 0}\\n<bytes>      →      {"columns": 1, "bytes": 812}\\n<bytes>

A reply too large for memory comes in pieces: frames with ``"more": true`` and bytes, then the reply itself without any.
An error can end them at any place, in place of the reply.

One request per connection: a process that dies in the middle costs one connection, and nothing has to be resumed.
The socket has mode 0600, and belongs to the user that runs the node: who may open it is trusted. Sizes, connections
and waits are bounded. An error of the handler travels as ``{"error": {...}}`` and is raised again on the asking side
with its own class, so that the caller can do what the class says.

A unix socket's path may have 107 bytes; longer ones are reached through ``/proc/self/fd/<folder>/<name>``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any

import msgspec

from headwater.kit import errors

PATH_BYTES_MAX = 107
LINE_BYTES_MAX = 4 * 1024 * 1024
BODY_BYTES_MAX = 256 * 1024 * 1024
CONNECTIONS_MAX = 64
CONNECT_WAIT_S = 2.0
READ_WAIT_S = 10.0
"""How long a server waits for the rest of a request that has begun."""

WRITE_WAIT_S = 30.0
"""How long a piece of a reply may wait for the asking side to read."""

Body = bytes | AsyncGenerator[bytes, None]
Handler = Callable[[dict[str, Any]], Awaitable[tuple[dict[str, Any], Body]]]
"""Answers one request. Its bytes, when it has any, stand under ``body``. A reply that comes in pieces is read after the
last of them; their generator is closed, whatever happens."""

KINDS: dict[str, type[errors.HeadwaterError]] = {
    kind.__name__: kind
    for kind in (
        errors.Rejected,
        errors.Busy,
        errors.Unavailable,
        errors.Lost,
        errors.Misconfigured,
        errors.Broken,
    )
}
encode_json = msgspec.json.encode
decode_json = msgspec.json.Decoder(dict[str, Any]).decode


class Server:
    """A listening socket with its handler. ``close`` stops listening and lets requests that have begun finish."""

    def __init__(self, path: str, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self.connections: set[asyncio.Task[None]] = set()
        self.listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. The caller holds the lock of the data folder, so a file that lies there is a stale one."""
        with short_path(self.path) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(path)
            os.chmod(path, 0o600)  # before listen: nobody can have connected yet
        self.listener = await asyncio.start_unix_server(self.connected, sock=listening, limit=LINE_BYTES_MAX)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one reply."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            reply, body = await self.answer(reader)
            if not isinstance(body, bytes):
                reply, body = await send_pieces(writer, reply, body), b""
            writer.write(frame(reply, body))
            await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # the asking side is gone: nobody is left to tell
        finally:
            self.connections.discard(task)
            writer.close()

    async def answer(self, reader: asyncio.StreamReader) -> tuple[dict[str, Any], Body]:
        """The handler's reply, or its error as one."""
        try:
            if len(self.connections) > CONNECTIONS_MAX:
                raise errors.Busy(f"more than {CONNECTIONS_MAX} requests at once", code="too_many_requests")
            async with asyncio.timeout(READ_WAIT_S):
                request = await read_frame(reader)
            return await self.handler(request)
        except errors.HeadwaterError as error:
            return {"error": describe(error)}, b""
        except TimeoutError:
            return {"error": describe(errors.Rejected("the request did not arrive whole in time"))}, b""

    async def close(self, wait_s: float = 5.0) -> None:
        """Stop listening; requests under way get ``wait_s`` to finish, then they are cut."""
        if self.listener is None:
            return
        self.listener.close()
        if self.connections:
            _, late = await asyncio.wait(self.connections, timeout=wait_s)
            for task in late:
                task.cancel()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


async def serve(path: str, handler: Handler) -> Server:
    """Listen at ``path`` and answer with ``handler``. Rejected, Busy and the like of the handler reach the asker."""
    server = Server(path, handler)
    await server.start()
    return server


def ask(
    path: str, request: Mapping[str, Any], timeout_s: float, *, body: bytes = b""
) -> tuple[dict[str, Any], bytes]:
    """Ask and wait. Unavailable when nobody answers at ``path`` in time; otherwise the handler's reply or error."""
    try:
        with short_path(path) as short, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(min(timeout_s, CONNECT_WAIT_S))
            connection.connect(short)
            connection.settimeout(timeout_s)
            connection.sendall(frame(request, body))
            with connection.makefile("rb") as stream:
                reply = parse_line(stream.readline(LINE_BYTES_MAX + 1))
                data = stream.read(reply.pop("bytes"))
    except OSError as error:
        raise unanswered(path) from error
    return raised(reply), data


def ask_pieces(
    path: str, request: Mapping[str, Any], timeout_s: float, told: dict[str, Any]
) -> Generator[bytes, None, None]:
    """The pieces of a reply as they come, each within ``timeout_s``; ``told`` has the reply after the last. Raises as
    ``ask`` does, also between two pieces."""
    try:
        with short_path(path) as short, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(min(timeout_s, CONNECT_WAIT_S))
            connection.connect(short)
            connection.settimeout(timeout_s)
            connection.sendall(frame(request, b""))
            with connection.makefile("rb") as stream:
                while True:
                    reply = parse_line(stream.readline(LINE_BYTES_MAX + 1))
                    length = reply.pop("bytes")
                    if not reply.get("more"):
                        break
                    data = stream.read(length)
                    if len(data) < length:
                        raise ConnectionResetError("the connection ended in the middle of a piece")
                    yield data
    except OSError as error:
        raise unanswered(path) from error
    told |= raised(reply)


async def send_pieces(
    writer: asyncio.StreamWriter, reply: dict[str, Any], pieces: AsyncGenerator[bytes, None]
) -> dict[str, Any]:
    """Send the pieces no quicker than they are read. What is to be said after them: ``reply``, or what ended them."""
    try:
        async for piece in pieces:
            writer.write(frame({"more": True}, piece))
            async with asyncio.timeout(WRITE_WAIT_S):
                await writer.drain()
    except errors.HeadwaterError as error:
        return {"error": describe(error)}
    finally:
        await pieces.aclose()
    return reply


async def ask_async(
    path: str, request: Mapping[str, Any], timeout_s: float, *, body: bytes = b""
) -> tuple[dict[str, Any], bytes]:
    """``ask`` on an event loop."""
    try:
        async with asyncio.timeout(timeout_s):
            with short_path(path) as short:
                reader, writer = await asyncio.open_unix_connection(short, limit=LINE_BYTES_MAX)
            try:
                writer.write(frame(request, body))
                await writer.drain()
                reply = await read_frame(reader)
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
        raise unanswered(path) from error
    data = reply.pop("body", b"")
    return raised(reply), data


def frame(message: Mapping[str, Any], body: bytes) -> bytes:
    """The bytes of a request or reply."""
    return b"".join((encode_json({**message, "bytes": len(body)}), b"\n", body))


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    """A message; its bytes, when it has any, under ``body``."""
    try:
        line = await reader.readline()
    except ValueError:  # how asyncio says that a line is over the limit
        raise errors.Rejected(
            f"the line is longer than {LINE_BYTES_MAX} bytes", code="line_too_long"
        ) from None
    if not line:
        raise asyncio.IncompleteReadError(b"", 1)
    message = parse_line(line)
    length = message.pop("bytes")
    if length:
        message["body"] = await reader.readexactly(length)
    return message


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object of a line, its ``bytes`` a number within bounds."""
    if not line.endswith(b"\n"):
        raise ConnectionResetError("the connection ended in the middle of a line")
    try:
        message = decode_json(line)
    except msgspec.DecodeError as error:
        raise errors.Rejected("the line is not a JSON object", code="line_format") from error
    length = message.setdefault("bytes", 0)
    if not isinstance(length, int) or not 0 <= length <= BODY_BYTES_MAX:
        raise errors.Rejected(f"bytes must be 0 to {BODY_BYTES_MAX}: {length!r}", code="body_size")
    return message


def describe(error: errors.HeadwaterError) -> dict[str, Any]:
    """An error as it travels, and as the HTTP API shows it."""
    told: dict[str, Any] = {"kind": type(error).__name__, "code": error.code, "message": error.message}
    if error.help:
        told["help"] = error.help
    if error.fields:
        told["fields"] = {name: str(value) for name, value in error.fields.items()}
    if isinstance(error, errors.Busy):
        told["retry_after_s"] = error.retry_after_s
    return told


def revive(told: Mapping[str, Any]) -> errors.HeadwaterError:
    """The error that ``describe`` told of."""
    kind = KINDS.get(told.get("kind", ""), errors.HeadwaterError)
    more = {"retry_after_s": told["retry_after_s"]} if kind is errors.Busy and "retry_after_s" in told else {}
    fields = {f"told_{name}": value for name, value in told.get("fields", {}).items()}
    return kind(
        told.get("message", "error"), code=told.get("code"), help=told.get("help", ""), **more, **fields
    )


def raised(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply; raises when it is an error."""
    if "error" in reply:
        raise revive(reply["error"])
    return reply


def unanswered(path: str) -> errors.Unavailable:
    return errors.Unavailable(f"no answer at {path}", code="no_answer", help="is the node running?")


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """A name for ``path`` that fits into a socket address, valid inside the block."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
