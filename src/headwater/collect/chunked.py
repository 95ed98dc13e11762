"""Transfer-Encoding: chunked, strictly: hexadecimal sizes, CRLF everywhere, no bare line ends.

Framing is ours (llhttp reads heads only), since a pipelined request may follow in the same bytes. Chunk extensions and
trailers are read over; nobody here has a use for them.
"""

from __future__ import annotations

import re
from io import BytesIO

from headwater.kit.errors import Rejected

LINE_MAX = 1024
TRAILERS_BYTES_MAX = 4096
SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Chunks:
    """One chunked body as it comes in."""

    __slots__ = ("buffer", "bytes", "closing", "missing", "size", "size_max", "trailing")

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self.bytes = BytesIO()
        self.size = 0
        self.missing = 0
        self.closing = False
        self.buffer = b""
        self.trailing = -1

    def feed(self, data: bytes) -> bytes | None:
        """Take more bytes. None: more are needed; else the bytes behind the body, which is then ``body``.

        Rejected: this is no chunked body, or it is too large.
        """
        data = self.buffer + data if self.buffer else data
        self.buffer = b""
        at = 0
        while True:
            if self.missing:
                taken = data[at : at + self.missing]
                at += len(taken)
                self.missing -= len(taken)
                self.bytes.write(taken)
                if self.missing:
                    return None
                self.closing = True
            end = self.line_end(data, at)
            if end < 0:
                self.buffer = data[at:]
                return None
            line, at = data[at:end], end + 2
            if self.trailing >= 0 and not line:
                return data[at:]
            self.line(line)

    @property
    def body(self) -> bytes:
        """The whole body, once ``feed`` has said that it is complete."""
        return self.bytes.getvalue()

    def line(self, line: bytes) -> None:
        """One line that is not data: the end of a chunk, a size, a trailer."""
        if self.closing:
            if line:
                raise Rejected("expected CRLF at the end of a chunk", code="bad_request")
            self.closing = False
        elif self.trailing >= 0:
            self.trailer(line)
        else:
            self.begin(line)

    def line_end(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + LINE_MAX)
        if end < 0 and (len(data) - at > LINE_MAX or b"\n" in data[at:]):
            raise Rejected("expected a chunk size and CRLF", code="bad_request")
        return end

    def begin(self, line: bytes) -> None:
        match = SIZE.fullmatch(line)
        if match is None:
            raise Rejected("expected a chunk size in hexadecimal", code="bad_request")
        size = int(match[1], 16)
        self.size += size
        if self.size > self.size_max:
            raise Rejected(
                f"expected a body of at most {self.size_max} bytes", code="body_too_large", status=413
            )
        if size:
            self.missing = size
        else:
            self.trailing = 0

    def trailer(self, line: bytes) -> None:
        self.trailing += len(line) + 2
        if TRAILER.fullmatch(line) is None or self.trailing > TRAILERS_BYTES_MAX:
            raise Rejected("expected trailers like headers, or none", code="bad_request")
