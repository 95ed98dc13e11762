"""Who gets in, who does not, and what those can do who do not."""

import asyncio
import contextlib
import dataclasses
import io
import socket
import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.kit.errors import Misconfigured, Unavailable
from headwater.peer import connection, frames, handshake
from headwater.peer import identity as identities
from headwater.peer.connection import Kind, Refused
from tests.unit.peer.nodes import SECRET, changed, counted, dialled, fake_link, feed, identity, listening

MIB = 1024 * 1024


async def refused_dial(address, whom, **more):
    with pytest.raises(Refused) as caught:
        await connection.dial(address, whom, **more)
    return caught.value


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("wrong_secret", {"secret": b"another horse"}),
        ("wrong_cluster", {"cluster": "west"}),
        ("foreign_version", {"protocol": (identities.PROTOCOL[1] + 1, 9)}),
        ("self", {"node": "a" * 16}),
    ],
)
async def test_who_does_not_belong_here_is_refused_with_the_reason_on_both_sides(reason, fields):
    """C9, J6."""
    here, there = identity("a"), changed(identity("b"), **fields)
    served: list = []
    async with listening(here, served.append) as listener:
        error = await refused_dial(listener.address, there)
    assert error.code == reason
    assert error.help
    assert counted(here) == counted(there) == {reason: 1}
    assert not served


async def test_protocols_that_overlap_agree_on_the_newest_of_both():
    """KR2."""
    async with (
        listening(changed(identity("a"), protocol=(1, 3))) as listener,
        dialled(listener.address, changed(identity("b"), protocol=(2, 7))) as peer,
    ):
        assert peer.protocol == 3


async def test_another_node_than_the_expected_one_is_refused():
    here, there = identity("a"), identity("b")
    async with listening(here) as listener:
        assert (await refused_dial(listener.address, there, node="c" * 16)).code == "other_node"
        async with dialled(listener.address, there, node="a" * 16):
            pass
    assert counted(here) == {"other_node": 1}


async def test_no_error_and_no_identity_shows_the_secret():
    shown = io.StringIO()
    secret = b"the-secret-of-this-test"
    here = changed(identity("a"), secret=secret)
    async with listening(here) as listener:
        for whom in (identity("b"), changed(identity("b"), secret=secret, cluster="west")):
            error = await refused_dial(listener.address, whom)
            print(repr(error), error, error.fields, error.__cause__, file=shown)
    print(repr(here), here, list(here.counters), file=shown)
    assert secret.decode() not in shown.getvalue()


def test_without_secret_and_certificates_nobody_is_let_in_at_all():
    with pytest.raises(Misconfigured, match="anybody could join"):
        identity("a", secret=b"")
    with pytest.raises(Misconfigured, match="too long"):
        identity("a", name="x" * 5000)


# -- those who are no node ---------------------------------------------------------------------------------------------


class Speaker:
    """Speaks frames over a socket without being a node."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def say(self, kind, header, *body):
        self.writer.write(frames.encode(kind, header, *body))

    async def hear(self):
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        _, kind, header_bytes = struct.unpack(">BBI", await self.reader.readexactly(6))
        rest = await self.reader.readexactly(length - 6)
        return kind, msgspec.msgpack.decode(rest[:header_bytes])

    def close(self):
        self.writer.close()


@contextlib.asynccontextmanager
async def speaking(address):
    host, port = address.split(":")
    speaker = Speaker(*await asyncio.open_connection(host, int(port)))
    try:
        yield speaker
    finally:
        speaker.close()


@contextlib.asynccontextmanager
async def pretending(behaviour):
    """A listener that is no node; gives its address."""

    async def connected(reader, writer):
        speaker = Speaker(reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await behaviour(speaker)
        speaker.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def claims(letter, **changed_fields):
    return msgspec.to_builtins(identity(letter).hello(bytes(32)), builtin_types=(bytes,)) | changed_fields


async def test_a_listener_that_takes_any_proof_is_refused_itself():
    async def pretend(speaker):
        await speaker.hear()
        speaker.say(Kind.HELLO, claims("a"))
        await speaker.hear()
        speaker.say(Kind.WELCOME, {"mac": bytes(32)})
        await speaker.hear()

    async with pretending(pretend) as address:
        assert (await refused_dial(address, identity("b"))).code == "wrong_secret"


async def test_a_listener_that_hands_back_the_diallers_own_proof_is_refused():
    async def reflect(speaker):
        _, hello = await speaker.hear()
        speaker.say(Kind.HELLO, claims("a", nonce=hello["nonce"]))
        _, proof = await speaker.hear()
        speaker.say(Kind.WELCOME, proof)
        await speaker.hear()

    async with pretending(reflect) as address:
        assert (await refused_dial(address, identity("b"))).code == "wrong_secret"


async def test_a_proof_that_a_node_makes_when_it_dials_does_not_open_its_own_door():
    """The attacker has node a dial him, claims to be b, and hands a's proof to a's listener with the same nonces."""
    here = identity("a")
    heard = []

    async with listening(here) as listener, speaking(listener.address) as attacker:

        async def middle(victim):
            _, hello = await victim.hear()
            attacker.say(Kind.HELLO, claims("b", nonce=hello["nonce"]))
            _, challenge = await attacker.hear()
            victim.say(Kind.HELLO, claims("b", nonce=challenge["nonce"]))
            attacker.say(*await victim.hear())
            heard.append(await attacker.hear())

        async with pretending(middle) as address:
            with pytest.raises((Refused, Unavailable)):
                await connection.dial(address, here)
    [(kind, header)] = heard
    assert (kind, header["code"]) == (Kind.REFUSED, "wrong_secret")


@contextlib.asynccontextmanager
async def relaying(address, change=lambda side, message: message):
    """Somebody between two nodes who may change what they say; ``seen`` is what he wrote down."""
    seen = []

    async def middle(near):
        async with speaking(address) as far:

            async def carry(side, source, target):
                while True:
                    message = change(side, await source.hear())
                    seen.append((side, message))
                    target.say(*message)

            carrying = [
                asyncio.get_running_loop().create_task(carry(side, *ends))
                for side, ends in (("dialled", (near, far)), ("listened", (far, near)))
            ]
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

    async with pretending(middle) as between:
        yield between, seen


async def test_a_handshake_that_is_said_again_is_refused():
    here = identity("a")
    async with listening(here) as listener:
        async with relaying(listener.address) as (between, seen), dialled(between, identity("b")):
            pass
        written_down = [message for side, message in seen if side == "dialled"]
        assert [kind for kind, _ in written_down] == [Kind.HELLO, Kind.PROOF]
        async with speaking(listener.address) as again:
            for message in written_down:
                again.say(*message)
            assert (await again.hear())[0] == Kind.HELLO
            kind, told = await again.hear()
            assert (kind, told["code"]) == (Kind.REFUSED, "wrong_secret")


@pytest.mark.parametrize("side", ["dialled", "listened"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("purpose", "other"), ("incarnation", 99), ("folder", "x"), ("protocol", [0, 1]), ("nonce", b"n" * 32)],
)
async def test_claims_that_somebody_changed_on_the_way_are_refused(side, name, value):
    def change(whose, message):
        kind, header = message
        return (kind, header | {name: value}) if (whose, kind) == (side, Kind.HELLO) else message

    async with listening(identity("a")) as listener, relaying(listener.address, change) as (between, _):
        assert (await refused_dial(between, identity("b"))).code == "wrong_secret"


async def test_claims_of_a_newer_node_that_nobody_here_knows_do_no_harm():
    async with listening(identity("a")) as listener, speaking(listener.address) as newer:
        hello = claims("b", colour="green")
        newer.say(Kind.HELLO, hello)
        kind, theirs = await newer.hear()
        assert kind == Kind.HELLO
        mac = identities.proof(
            SECRET, identities.DIALLED, msgspec.msgpack.encode(hello), msgspec.msgpack.encode(theirs)
        )
        newer.say(Kind.PROOF, {"mac": mac, "more": 1})
        assert (await newer.hear())[0] == Kind.WELCOME
        newer.say(Kind.PING, {"n": 1})
        assert await newer.hear() == (Kind.PING, {"n": 1})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (frames.encode(Kind.DATA, {}), "unexpected_frame"),
        (frames.encode(Kind.PROOF, {"mac": b""}), "unexpected_frame"),
        (frames.encode(Kind.HELLO, {}), "bad_hello"),
        (frames.encode(Kind.HELLO, claims("b", nonce=b"short")), "bad_hello"),
        (frames.encode(Kind.HELLO, claims("b", incarnation="x")), "bad_hello"),
        (frames.encode(Kind.HELLO, claims("b"), bytes(5000)), "bad_frame"),
        (frames.HEAD.pack(20, 9, 1, 5) + bytes(20), "foreign_version"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "bad_frame"),
        (bytes.fromhex("16030100c5010000c10303"), "tls"),
        (b"", "ended"),
        (frames.encode(Kind.HELLO, claims("b"))[:-1], "ended"),
        (frames.encode(Kind.HELLO, claims("b")) + frames.encode(Kind.PROOF, {"mac": 5}), "bad_hello"),
        (frames.encode(Kind.HELLO, claims("b")) + frames.encode(Kind.PROOF, {"mac": b""}), "wrong_secret"),
        (frames.encode(Kind.HELLO, claims("b", secret=False)), "wrong_secret"),
        (frames.encode(Kind.REFUSED, {"code": "\x1b[2J", "message": "\x1b[2J"}), "other"),
    ],
)
async def test_who_is_no_node_is_refused_and_counted(said, reason):
    here = identity("a")
    async with listening(here) as listener, speaking(listener.address) as stranger:
        stranger.writer.write(said)
        stranger.writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await stranger.reader.read()
        await until(lambda: counted(here))
        assert counted(here) == {reason: 1}
        await until(lambda: not listener.tasks)


async def until(true):
    while not true():
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.002)


async def test_what_a_stranger_gives_as_reason_is_shown_without_its_controls():
    async def pretend(speaker):
        speaker.say(Kind.REFUSED, {"code": "self\n", "message": "\x1b[2J" + "x" * 3000})
        await speaker.hear()

    async with pretending(pretend) as address:
        error = await refused_dial(address, identity("b"))
    assert error.code == "other"
    assert "\x1b" not in str(error)
    assert len(str(error)) < 400


async def test_who_says_nothing_is_sent_away_in_time(monkeypatch):
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 0.05)
    here = identity("a")
    async with listening(here) as listener, speaking(listener.address) as stranger:
        assert (await stranger.hear())[1]["code"] == "too_slow"
        assert await stranger.reader.read() == b""
    assert counted(here) == {"too_slow": 1}


async def test_a_listener_that_says_nothing_is_unavailable(monkeypatch):
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 0.05)

    async def silent(speaker):
        await speaker.reader.read()

    async with pretending(silent) as address:
        with pytest.raises(Unavailable, match="says nothing"):
            await connection.dial(address, identity("b"))


async def test_strangers_who_say_nothing_do_not_keep_nodes_out(monkeypatch):
    monkeypatch.setattr(connection, "UNKNOWN_MAX", 4)
    monkeypatch.setattr(connection, "GIVE_WAY_S", 0.005)
    here = identity("a")
    async with listening(here) as listener, contextlib.AsyncExitStack() as strangers:
        for _ in range(20):
            await strangers.enter_async_context(speaking(listener.address))
        async with dialled(listener.address, identity("b")) as peer:
            await peer.send(Kind.PING, {})
            assert (await peer.receive()).kind == Kind.PING
            assert len(listener.unknown) <= 4
    assert counted(here)["too_many"] >= 16


async def test_nodes_do_not_count_as_strangers(monkeypatch):
    monkeypatch.setattr(connection, "UNKNOWN_MAX", 2)
    async with listening(identity("a")) as listener, contextlib.AsyncExitStack() as nodes:
        for letter in "bcdefgh":
            await nodes.enter_async_context(dialled(listener.address, identity(letter)))
        assert len(listener.tasks) == 7
        assert not listener.unknown


async def test_strangers_together_make_a_node_keep_less_than_4_mib():
    """C9."""
    async with listening(identity("a")) as listener, contextlib.AsyncExitStack() as strangers:
        host, port = listener.address.split(":")
        tracemalloc.start()
        try:
            for _ in range(connection.UNKNOWN_MAX):
                stranger = strangers.enter_context(socket.create_connection((host, int(port))))
                stranger.sendall(frames.HEAD.pack(4090, 1, Kind.HELLO, 4000) + b"\x81" * 100_000)
            await until(lambda: len(listener.unknown) == connection.UNKNOWN_MAX)
            await until_quiet(listener)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB


async def until_quiet(listener):
    while listener.unknown:
        await asyncio.wait(list(listener.unknown), timeout=0.01)


CLAIMED = ("protocol", "cluster", "node", "incarnation", "folder", "nonce", "expects", "secret")
VALUES = st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9) | st.binary(max_size=40)
HELLOS = st.builds(frames.encode, st.just(Kind.HELLO), st.dictionaries(st.sampled_from(CLAIMED), VALUES))


@given(st.binary(max_size=300) | HELLOS)
def test_random_first_words_are_refused_and_never_crash(said):
    """C9."""

    async def main():
        link, transport = fake_link(trusted=False)
        feed(link, said)
        link.eof_received()
        with pytest.raises(Refused):
            await handshake.recognise(link, identity("a"))
        assert transport.closing

    asyncio.run(main())


def test_an_identity_is_not_changed_once_it_is_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity("a").secret = b""
