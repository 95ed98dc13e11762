"""Checks that the reference servers deserve to be compared with: `python -m benchmarks --check`.

* bad input gets the right status and never ends the C loop (fixed cases, then seeded mutations of good requests);
* its disk mode is honest: in an strace, fdatasync has returned before the reply to that very event is sent;
* what was acknowledged is in the log: kill -9 under load, then the blocks are read back and their hashes checked.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import xxhash

from benchmarks import events
from benchmarks.servers import CACHE, CLoop, Granian, Server, Unavailable

PORT = 18490
HEADER = struct.Struct("<4sBBHIIQQIIQQQ")
STAMP = struct.Struct("<IIQQHBBI16s")
AUTH = "Authorization: Basic " + base64.b64encode(f"{events.KEY}:".encode()).decode()
GOOD = '{"type":"track","event":"a","messageId":"m","anonymousId":"x"}'


ODD = (b"\r\n", b"\n", b"\0", b":", b"{", b'"', b"\\u", b"[" * 40, b"Content-Length: 9999\r\n", b"\xf0\x9f")
"""What mutations put into a request."""


def request(
    body: str | bytes = GOOD,
    path: str = "/v1/track",
    *headers: str,
    method: str = "POST",
    length: object = None,
    auth: str = AUTH,
) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: a",
        f"Content-Length: {len(data) if length is None else length}",
        *([auth] if auth else []),
        *headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def exchange(port: int, data: bytes, wait_s: float = 2.0) -> bytes:
    """Sends, then reads until one whole answer or the end."""
    with socket.create_connection(("127.0.0.1", port), wait_s) as s:
        try:
            s.sendall(data)
            got = b""
            while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < _length(got):
                more = s.recv(65536)
                if not more:
                    break
                got += more
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        return got


def _length(answer: bytes) -> int:
    found = re.search(rb"(?i)content-length: *(\d+)", answer)
    return int(found[1]) if found else 0


CASES: list[tuple[str, bytes, int]] = [
    ("good", request(), 200),
    ("write key header", request(GOOD, "/v1/track", f"X-Write-Key: {events.KEY}", auth=""), 200),
    ("key in the query", request(GOOD, f"/v1/track?a=b&key={events.KEY}", auth=""), 200),
    ("numbers as ids, null user", request('{"anonymousId":12.5,"userId":null}'), 200),
    ("unicode and escapes", request('{"event":"é😀\\u00e9\\ud83d\\ude00\\n"}'), 200),
    ("batch", request('{"batch":[{"type":"track"},{}]}', "/v1/batch"), 200),
    ("pixel", request(b"", f"/pixel.gif?key={events.KEY}", method="GET", auth=""), 200),
    ("no key", request(auth=""), 401),
    ("wrong key", request(auth="Authorization: Basic eDo="), 401),
    (
        "key with a wrong end",
        request(auth="Authorization: Basic " + base64.b64encode(f"{events.KEY[:-1]}X:".encode()).decode()),
        401,
    ),
    ("broken base64", request(auth="Authorization: Basic !!!"), 401),
    ("no such path", request(path="/nothing"), 404),
    ("wrong method", request(method="PUT"), 405),
    ("empty body", request(""), 400),
    ("not an object", request("[1]"), 400),
    ("cut off", request('{"a":'), 400),
    ("trailing text", request("{} x"), 400),
    ("trailing comma", request('{"a":1,}'), 400),
    ("leading zero", request('{"a":01}'), 400),
    ("bare minus", request('{"a":-}'), 400),
    ("no digits after the point", request('{"a":1.}'), 400),
    ("control character in a string", request('{"a":"\x01"}'), 400),
    ("bad escape", request('{"a":"\\x"}'), 400),
    ("short unicode escape", request('{"a":"\\u12"}'), 400),
    ("bad UTF-8", request(b'{"a":"\xff"}'), 400),
    ("overlong UTF-8", request(b'{"a":"\xc0\xaf"}'), 400),
    ("UTF-8 surrogate", request(b'{"a":"\xed\xa0\x80"}'), 400),
    ("cut UTF-8", request(b'{"a":"\xe2\x82"}'), 400),
    ("type is a number", request('{"type":1}'), 400),
    ("event is an object", request('{"event":{}}'), 400),
    ("too deep", request('{"a":' + "[" * 5000 + "]" * 5000 + "}"), 400),
    ("batch is no list", request('{"batch":{}}', "/v1/batch"), 400),
    ("batch is missing", request("{}", "/v1/batch"), 400),
    ("batch is empty", request('{"batch":[]}', "/v1/batch"), 400),
    ("content length is no number", request(length="x"), 400),
    ("content length is negative", request(length="-1"), 400),
    ("content length twice", request(GOOD, "/v1/track", "Content-Length: 3"), 400),
    ("chunked", request(GOOD, "/v1/track", "Transfer-Encoding: chunked"), 400),
    ("body too large", request("", length=2 << 20), 413),
    ("head too large", request(GOOD, "/v1/track", "X: " + "a" * 20_000), 431),
    ("compressed", request(GOOD, "/v1/track", "Content-Encoding: gzip"), 415),
    ("no host", request().replace(b"Host: a\r\n", b""), 400),
    ("space before the colon", request(GOOD, "/v1/track", "X : a"), 400),
    ("folded header", request(GOOD, "/v1/track", "X: a\r\n b"), 400),
    ("bare line feed", request().replace(b"\r\n", b"\n"), 400),
    ("NUL in a header", request(GOOD, "/v1/track", "X: a\0b"), 400),
    ("no such protocol", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
    ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400),
]


def status_of(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def check_cases(server: Server) -> None:
    wrong = [
        f"{name}: {status_of(got)} instead of {want}"
        for name, data, want in CASES
        if status_of(got := exchange(server.port, data)) != want
    ]
    assert not wrong, "\n  ".join(["wrong status", *wrong])
    # as long as the right one
    guesses = [base64.b64encode(f"wrong-key-{n:07d}:".encode()).decode() for n in range(2000)]
    assert len(events.KEY) == 17
    with socket.create_connection(("127.0.0.1", server.port), 2) as s:
        for guess in guesses:
            s.sendall(request(auth=f"Authorization: Basic {guess}"))
            assert status_of(s.recv(4096)) == 401, f"a wrong key was let in: {guess}"
    pipelined = request() + request(b"", "/ping", method="GET") + request('{"type":1}')
    with socket.create_connection(("127.0.0.1", server.port), 2) as s:
        for byte in pipelined:  # byte by byte: every split of a head and a body is seen
            s.sendall(bytes([byte]))
        got, deadline = b"", time.monotonic() + 3
        while got.count(b"HTTP/1.1 ") < 3 and time.monotonic() < deadline:
            got += s.recv(65536)
    assert [int(x) for x in re.findall(rb"HTTP/1\.1 (\d+)", got)] == [200, 200, 400], got


def check_fuzz(server: Server, rounds: int = 4000, seed: int = 5) -> None:
    """Mutated requests: any answer or a closed connection will do; the server must live and still answer well."""
    rng = random.Random(seed)
    assert server.process is not None
    for n in range(rounds):
        data = bytearray(rng.choice(CASES)[1][:3000])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 20)]
            elif kind == 2:
                data[at:at] = rng.choice(ODD)
            else:
                data += data[at : at + 200]
            if not data:
                break
        with socket.create_connection(("127.0.0.1", server.port), 2) as s:
            try:
                s.sendall(data)
                if n % 3:
                    s.settimeout(0.02)
                    s.recv(4096)
            except (TimeoutError, OSError):
                pass
        if n % 200 == 0:
            assert server.process.poll() is None, f"the server died in fuzz round {n}, seed {seed}"
    assert server.process.poll() is None, "the server died"
    check_cases(server)


def check_honest(server: Server) -> None:
    """In the trace, between the receive of an event and the send of its reply lies an fdatasync that returned 0."""
    if shutil.which("strace") is None:
        print("  strace is not installed: honesty not checked")
        return
    trace = server.folder / "trace"
    pid = next(
        p
        for p, seen in server.tree().items()
        if "strace" not in seen.command and seen.command.startswith(str(CLoop.binary))
    )
    calls = "trace=recvfrom,sendto,fdatasync,pwrite64"
    command = f"strace -f -tt -s 4096 -e {calls} -p {pid} -o".split()
    tracer = subprocess.Popen([*command, str(trace)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.7)
        for n in range(20):
            answer = exchange(server.port, request(json.dumps({"type": "track", "messageId": f"honest-{n}"})))
            assert b'"ack":"disk"' in answer, answer
        time.sleep(0.3)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    written = synced = False
    replies = 0
    unfinished = re.compile(r"fdatasync\(.*<unfinished")
    for line in trace.read_text(errors="replace").splitlines():
        if "honest-" in line and "recvfrom" in line:
            written = synced = False
        elif "pwrite64(" in line and "HWB1" in line:
            written, synced = True, False
        elif "fdatasync" in line and not unfinished.search(line) and line.rstrip().endswith("= 0"):
            synced = written
        elif "sendto(" in line and "receipt" in line:
            replies += 1
            assert synced, f"a reply left before fdatasync was back: {line[:200]}"
    assert replies == 20, f"{replies} replies in the trace instead of 20"


def read_log(folder: Path) -> list[tuple[int, int, list[bytes]]]:
    """(first seq, events, bodies) of every valid block, in order; stops a segment at the first page that is none."""
    found = []
    for path in folder.glob("*.seg"):
        data, at = path.read_bytes(), 0
        while at + 64 <= len(data) and data[at : at + 4] == b"HWB1":
            h = HEADER.unpack_from(data, at)
            size = 64 + h[4]
            block = bytearray(data[at : at + size])
            block[56:64] = bytes(8)
            if xxhash.xxh3_64_intdigest(bytes(block)) != h[12]:
                break
            bodies, p = [], at + 64
            for _ in range(h[5]):
                stamp = STAMP.unpack_from(data, p)
                bodies.append(data[p + stamp[0] - stamp[1] : p + stamp[0]])
                p += stamp[0]
            found.append((h[7], h[8], bodies))
            at += (size + 4095) // 4096 * 4096
    return sorted(found)


def check_kept(server: Server) -> None:
    """kill -9 of the server under load: every acknowledged message id is in a block whose hash is right."""
    acknowledged: set[str] = set()
    halt = threading.Event()

    def client(number: int) -> None:
        n = 0
        while not halt.is_set():
            name = f"kept-{number}-{n}"
            n += 1
            try:
                answer = exchange(server.port, request(json.dumps({"type": "track", "messageId": name})))
            except OSError:
                return
            if status_of(answer) == 200 and b"}" in answer:
                acknowledged.add(name)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    time.sleep(1.5)
    for pid in server.tree():
        os.kill(pid, signal.SIGKILL)
    halt.set()
    for t in threads:
        t.join()
    blocks = read_log(server.folder / "raw")
    expected = 0
    for first, count, _ in blocks:
        assert first == expected, f"block begins at {first}, expected {expected}"
        expected += count
    stored = {json.loads(b).get("messageId") for _, _, bodies in blocks for b in bodies if b.startswith(b"{")}
    lost = acknowledged - stored
    assert acknowledged and not lost, (
        f"{len(lost)} of {len(acknowledged)} acknowledged events are not in the log"
    )
    print(f"  {len(acknowledged):,} acknowledged, all of them in {len(blocks):,} blocks")


def main() -> int:
    checks: list[tuple[str, type[Server], Callable[[Server], None]]] = [
        ("C loop: statuses, pipelining, split input", CLoop, check_cases),
        ("C loop: fuzz", CLoop, check_fuzz),
        ("C loop: reply after fdatasync (strace)", CLoop, check_honest),
        ("C loop: kill -9 loses nothing acknowledged", CLoop, check_kept),
        ("granian: kill -9 loses nothing acknowledged", Granian, check_kept),
    ]
    bad = 0
    for name, kind, check in checks:
        print(name, flush=True)
        server = kind(ack="disk", port=PORT, folder=CACHE / "run" / "check")
        try:
            server.prepare()
            server.start()
            check(server)
        except Unavailable as e:
            print(f"  not checked: {e}")
        except AssertionError as e:
            bad += 1
            print(f"  FAILED: {e}")
        finally:
            server.stop()
    return 1 if bad else 0
