"""Answers, as bytes. Every refusal is JSON that says what was wrong and what was expected.

`{"ok": true, "accepted": n, "ack": "disk", "receipt": "…"}`, Segment's paths with `"success": true`;
`{"ok": false, "error": code, "reason": text}` with `field` and `refused` where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from headwater.dialects.envelope import Refusal
from headwater.kit.errors import HeadwaterError

PHRASES = {
    200: "OK",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
JSON = "application/json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
PIXEL_LINES = "Cache-Control: no-store\r\nCross-Origin-Resource-Policy: cross-origin\r\n"

encode = msgspec.json.Encoder().encode


def response(status: int, body: bytes, lines: str = "", content_type: str = JSON) -> bytes:
    """A whole answer. ``lines`` are more header lines, each with its line end."""
    head = f"HTTP/1.1 {status} {PHRASES[status]}\r\n"
    if status not in (204, 304):
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}X-Content-Type-Options: nosniff\r\n{lines}\r\n".encode("latin-1") + body


def error(
    status: int,
    code: str,
    reason: str,
    lines: str = "",
    *,
    field: str = "",
    refused: Sequence[Refusal] = (),
    retry_after_s: float = 0.0,
    ack: str = "",
) -> bytes:
    """An answer that says why not; ``ack``: what holds nevertheless."""
    said: dict[str, Any] = {"ok": False, "error": code, "reason": reason}
    if ack:
        said["ack"] = ack
    if field:
        said["field"] = field
    if refused:
        said["refused"] = refused
    if retry_after_s:
        lines += f"Retry-After: {max(1, math.ceil(retry_after_s))}\r\n"
    return response(status, encode(said), lines)


def unavailable(trouble: HeadwaterError, lines: str = "") -> bytes:
    """503: the client is to try again. Nothing was accepted, unless the trouble has an ``ack``: what holds already."""
    retry_after_s = getattr(trouble, "retry_after_s", 1.0)
    ack = str(trouble.fields.get("ack", ""))
    return error(503, trouble.code, trouble.message, lines, retry_after_s=retry_after_s, ack=ack)


def accepted(
    count: int, ack: str, receipt: str, lines: str, *, success: bool, refused: Sequence[Refusal] = ()
) -> bytes:
    """An acknowledgement of some events, perhaps not of all."""
    said: dict[str, Any] = {"ok": True}
    if success:
        said["success"] = True
    said |= {"accepted": count, "ack": ack, "receipt": receipt}
    if refused:
        said["refused"] = refused
    return response(200, encode(said), lines)


def pixel(receipt: str, lines: str) -> bytes:
    """The image."""
    if receipt:
        lines += f"X-Headwater-Receipt: {receipt}\r\n"
    return response(200, GIF, PIXEL_LINES + lines, "image/gif")


def closing(reply: bytes) -> bytes:
    """The same answer, saying that the connection ends with it."""
    return reply.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def keeping(reply: bytes) -> bytes:
    """The same answer for an HTTP/1.0 client that asked to stay."""
    return reply.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n", 1)


def without_body(reply: bytes) -> bytes:
    """The same answer to HEAD."""
    return reply[: reply.index(b"\r\n\r\n") + 4]


class Template:
    """The acknowledgement of one event under one head: everything but the number in its receipt.

    The length of the body depends on how many digits the number has, so a template holds up to ``limit``.
    """

    __slots__ = ("after", "before", "limit")

    def __init__(self, sample: bytes, receipt: str) -> None:
        """From an answer whose receipt ends with a number."""
        at = sample.index(receipt.encode()) + len(receipt)
        digits = len(receipt) - receipt.rindex("-") - 1
        self.before = sample[: at - digits]
        self.after = sample[at:]
        self.limit = 10**digits
