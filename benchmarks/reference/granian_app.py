"""The reference for Python frameworks: the same checks and the same durable promise as a granian RSGI application.

Written as a good granian application would be: typed partial decode with msgspec, group commit in one thread, one
future per commit (not per request). What it does less than the collector: no deadlines or caps beyond
granian's own. Settings come from the environment: BENCH_KEY, BENCH_DIR, BENCH_MEMORY=1.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import mmap
import os
import struct
import threading
import time
from typing import Any

import msgspec
import xxhash

KEY = os.environ["BENCH_KEY"]
MEMORY = os.environ.get("BENCH_MEMORY") == "1"
ACK = "memory" if MEMORY else "disk"
SEGMENT_BYTES = 64 << 20
BODY_BYTES_MAX = 1 << 20
QUOTA = 1e7
ORIGINS = {"*"}
WAITING_BYTES_MAX = 4 << 20
GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
_HEADER = struct.Struct("<4sBBHIIQQIIQQQ")
_STAMP = struct.Struct("<IIQQHBBI16s")
_INDEX = struct.Struct("<HI")
_STAMPED = (
    "content-type", "user-agent", "referer", "accept-language", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform",
    "origin", "dnt", "sec-gpc",
)  # fmt: skip
Id = str | int | float | None


class Event(msgspec.Struct):
    type: str | None = None
    event: str | None = None
    messageId: str | None = None
    anonymousId: Id = None
    userId: Id = None


class Batch(msgspec.Struct):
    batch: list[Event]


decode_event = msgspec.json.Decoder(Event).decode
decode_batch = msgspec.json.Decoder(Batch).decode


class Log:
    """Blocks as protocol.md section 2; window 0: a commit begins when the one before is back."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.writer, self.log_id = int.from_bytes(os.urandom(8), "big"), time.time_ns() // 1_000_000 << 22
        self.seq = self.first_seq = 0
        self.parts: list[bytes] = []
        self.records = self.events = self.bytes = 0
        self.index: list[bytes] = []
        self.busy = False
        self.loop = asyncio.get_running_loop()
        self.durable = self.loop.create_future()
        self.wake = threading.Semaphore(0)
        self.work: tuple[list[bytes], int, int, int, Any] | None = None
        self.fd, self.at, self.number = -1, SEGMENT_BYTES, 0
        threading.Thread(target=self._run, daemon=True).start()

    def append(self, record: list[bytes], size: int, events: int) -> int:
        seq = self.seq
        self.seq += events
        self.parts += record
        self.records += 1
        self.bytes += size
        self.events += events
        if not self.busy:
            self.busy = True
            self.loop.call_soon(self._start)  # after the other requests of this turn
        return seq

    def _start(self) -> None:
        self.work = (self.parts + self.index, self.records, self.events, self.first_seq, self.durable)
        self.parts, self.index, self.records, self.events, self.bytes, self.first_seq = (
            [],
            [],
            0,
            0,
            0,
            self.seq,
        )
        self.durable = self.loop.create_future()
        self.wake.release()

    def _committed(self, done: Any) -> None:
        done.set_result(None)
        if self.records:
            self._start()
        else:
            self.busy = False

    def _segment(self) -> None:
        path = os.path.join(self.folder, f"{self.log_id:016x}-{self.number:06d}.seg")
        old = os.path.join(self.folder, f"{self.log_id:016x}-{self.number - 64:06d}.seg")
        self.number += 1
        if self.fd >= 0:
            os.close(self.fd)
        if os.path.exists(old):
            os.rename(old, path)
            self.fd = os.open(path, os.O_WRONLY)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
            zero = mmap.mmap(-1, 1 << 20)  # aligned, as O_DIRECT wants it
            for _ in range(SEGMENT_BYTES >> 20):
                os.write(fd, zero)
            os.fsync(fd)
            os.close(fd)
            self.fd = os.open(path, os.O_WRONLY)
        self.at = 0

    def _run(self) -> None:
        while True:
            self.wake.acquire()
            assert self.work is not None
            parts, records, events, first_seq, done = self.work
            payload = b"".join(parts)
            head = (
                b"HWB1",
                1,
                0,
                64,
                len(payload),
                records,
                self.log_id,
                first_seq,
                events,
                0,
                time.time_ns(),
                0,
            )
            state = xxhash.xxh3_64(_HEADER.pack(*head, 0))
            state.update(payload)
            block = _HEADER.pack(*head, state.intdigest()) + payload
            block += bytes(-len(block) % 4096)
            if self.at + len(block) > SEGMENT_BYTES:
                self._segment()
            os.pwrite(self.fd, block, self.at)
            self.at += len(block)
            os.fdatasync(self.fd)
            self.loop.call_soon_threadsafe(self._committed, done)


def _key(authorization: str | None, headers: Any, query: str) -> str:
    if authorization and authorization[:6].lower() == "basic ":
        return base64.b64decode(authorization[6:]).decode().partition(":")[0]
    given = headers.get("x-write-key")
    if given:
        return str(given)
    for pair in query.split("&"):
        if pair.startswith("key="):
            return pair[4:]
    return ""


class App:
    def __init__(self) -> None:
        self.log: Log | None = None
        self.tokens, self.tokens_at = QUOTA, time.monotonic()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    def _take(self, events: int) -> bool:
        now = time.monotonic()
        self.tokens = min(QUOTA, self.tokens + (now - self.tokens_at) * QUOTA)
        self.tokens_at = now
        if self.tokens < events:
            return False
        self.tokens -= events
        return True

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if self.log is None:
            self.log = Log(os.environ["BENCH_DIR"])
        path = scope.path
        if path == "/ping":
            protocol.response_str(200, [("content-type", "text/plain")], "pong\n")
            return
        pixel, batch = path == "/pixel.gif", path == "/v1/batch"
        if not pixel and not batch and path not in ("/v1/track", "/v1/page", "/v1/identify", "/events"):
            return self._refuse(protocol, 404, "no such path")
        if scope.method != ("GET" if pixel else "POST"):
            return self._refuse(protocol, 405, "method")
        headers = dict(scope.headers.items())  # one crossing into Rust instead of a dozen
        if not hmac.compare_digest(_key(headers.get("authorization"), headers, scope.query_string), KEY):
            return self._refuse(protocol, 401, "unknown or missing key")
        origin = headers.get("origin")
        if origin and "*" not in ORIGINS and origin not in ORIGINS:
            return self._refuse(protocol, 403, "origin not allowed for this key")
        body, events, visitor = b"", 1, None
        if not pixel:
            if int(headers.get("content-length") or 0) > BODY_BYTES_MAX:
                return self._refuse(protocol, 413, "body above 1 MiB")
            body = await protocol()
            try:
                if not body.isascii():
                    body.decode()
                if batch:
                    events = len(decode_batch(body).batch)
                else:
                    one = decode_event(body)
                    visitor = one.anonymousId or one.userId
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
                return self._refuse(protocol, 400, str(e))
        elif not scope.query_string:
            return self._refuse(protocol, 400, "empty query")
        if not self._take(events):
            return self._refuse(protocol, 429, "quota")
        texts = [(headers.get(n) or "").encode() for n in _STAMPED]
        texts.append(f"{path}?{scope.query_string}".encode() if scope.query_string else path.encode())
        lengths = struct.pack("<11H", *map(len, texts))
        total = _STAMP.size + 22 + sum(map(len, texts)) + len(body)
        slot = xxhash.xxh3_64_intdigest(str(visitor).encode()) % 4096 if visitor is not None else 0
        stamp = _STAMP.pack(
            total,
            len(body),
            time.time_ns(),
            time.monotonic_ns(),
            0,
            batch,
            0,
            events,
            scope.client.encode()[:16],
        )
        log = self.log
        seq = log.append([stamp, lengths, *texts, body], total, events)
        log.index.append(_INDEX.pack(slot, log.bytes))
        if not MEMORY or log.bytes > WAITING_BYTES_MAX:
            await log.durable
        out = [("content-type", "image/gif" if pixel else "application/json")]
        if origin:
            out += [("access-control-allow-origin", origin), ("vary", "Origin")]
        if pixel:
            protocol.response_bytes(200, out, GIF)
        else:
            receipt = f"{log.writer:016x}-{log.log_id:016x}-{seq}"
            protocol.response_str(
                200,
                out,
                f'{{"ok":true,"success":true,"accepted":{events},"ack":"{ACK}","receipt":"{receipt}"}}',
            )

    @staticmethod
    def _refuse(protocol: Any, status: int, why: str) -> None:
        protocol.response_bytes(
            status, [("content-type", "application/json")], msgspec.json.encode({"ok": False, "error": why})
        )


app = App()
