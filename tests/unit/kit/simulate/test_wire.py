import asyncio

import pytest

from headwater.kit.errors import Unavailable
from headwater.kit.simulate import loop
from headwater.kit.simulate.wire import Network
from headwater.kit.wire import Stream


async def pair(network: Network) -> tuple[Stream, Stream]:
    door = await network.host("b").listen("b:1")
    near = await network.host("a").connect("b:1", timeout_s=1)
    return near, await door.accept()


async def read_all(stream: Stream, length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := await stream.read(1000)):
        data += piece
    return data


@pytest.mark.parametrize("seed", range(10))
def test_bytes_arrive_in_order_and_the_end_after_them(seed: int) -> None:
    async def main() -> None:
        near, far = await pair(Network(seed))
        await near.write(b"abc" * 100)
        await near.write(b"def")
        await near.close()
        assert await read_all(far, 10_000) == b"abc" * 100 + b"def"
        await far.write(b"back")
        assert await read_all(near, 4) == b"back"

    loop.run(main(), seed)


def test_a_cut_holds_back_and_loses_nothing() -> None:
    async def main() -> None:
        network = Network(1)
        near, far = await pair(network)
        network.cut("a", "b", one_way=True)
        await near.write(b"late")
        await far.write(b"half open")
        assert await read_all(near, 9) == b"half open"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await far.read(10)
        with pytest.raises(Unavailable):
            await network.host("a").connect("b:1", timeout_s=1)
        network.heal()
        assert await read_all(far, 4) == b"late"

    loop.run(main())


def test_a_reset_is_heard_by_both() -> None:
    async def main() -> None:
        network = Network(1)
        near, far = await pair(network)
        network.reset("a", "b")
        for stream in (near, far):
            with pytest.raises(Unavailable):
                await stream.read(1)

    loop.run(main())


def test_a_silent_death_is_not_heard() -> None:
    async def main() -> None:
        network = Network(1)
        near, _ = await pair(network)
        network.crash("b", silent=True)
        await near.write(b"anybody?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await near.read(1)

    loop.run(main())


def test_a_writer_waits_for_a_slow_reader() -> None:
    async def main() -> None:
        near, far = await pair(Network(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await near.write(bytes(1 << 20))
        assert len(await read_all(far, 1 << 20)) == 1 << 20

    loop.run(main())
