"""Connections of protocols on the simulated network: in order, held back by cuts, noticed when they are gone."""

from __future__ import annotations

import asyncio

import pytest

from headwater.kit.errors import Unavailable
from headwater.kit.simulate import loop
from headwater.kit.simulate.transport import connect
from headwater.kit.simulate.wire import Network


class Kept(asyncio.BufferedProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.buffer = bytearray(100)
        self.data = b""
        self.ended = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += bytes(self.buffer[:nbytes])

    def eof_received(self) -> None:
        self.ended += "eof "

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended += type(exc).__name__


@pytest.mark.parametrize("seed", range(5))
def test_bytes_arrive_in_order_and_a_cut_delays_them(seed: int) -> None:
    async def main() -> None:
        network, near, far = Network(seed), Kept(), Kept()
        one, _ = await connect(network, "a", "b", near, far, 1.0)
        sent = bytes(range(256)) * 4
        network.cut("a", "b")
        one.write(sent[:500])
        one.write(sent[500:])
        one.close()
        await asyncio.sleep(5)
        assert far.data == b"" and far.ended == ""
        network.heal()
        await asyncio.sleep(5)
        assert far.data == sent
        assert far.ended == "eof NoneType" and near.ended == "NoneType"

    loop.run(main(), seed)


@pytest.mark.parametrize("seed", range(5))
def test_an_end_that_is_gone_is_noticed_by_who_sends(seed: int) -> None:
    async def main() -> None:
        network, near, far = Network(seed), Kept(), Kept()
        one, other = await connect(network, "a", "b", near, far, 1.0)
        other.vanish()
        await asyncio.sleep(5)
        assert near.ended == ""
        one.write(b"x")
        await asyncio.sleep(5)
        assert near.ended == "ConnectionResetError" and far.ended == ""

    loop.run(main(), seed)


def test_a_reader_that_pauses_holds_the_sender_up() -> None:
    async def main() -> None:
        network, near, far = Network(1), Kept(), Kept()
        one, other = await connect(network, "a", "b", near, far, 1.0)
        other.pause_reading()
        one.write(bytes(1000))
        await asyncio.sleep(5)
        assert far.data == b""
        other.resume_reading()
        await asyncio.sleep(5)
        assert far.data == bytes(1000)

    loop.run(main(), 1)


def test_nobody_connects_across_a_cut_or_with_a_machine_that_stands_still() -> None:
    async def main() -> None:
        for way in ("cut", "frozen"):
            network = Network(1)
            network.cut("b", "a", one_way=True) if way == "cut" else network.frozen.add("b")
            with pytest.raises(Unavailable, match="does not answer"):
                await connect(network, "a", "b", Kept(), Kept(), 1.0)

    loop.run(main(), 1)
