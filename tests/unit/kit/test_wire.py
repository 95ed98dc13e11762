import pytest

from headwater.kit.errors import Misconfigured, Unavailable
from headwater.kit.wire import SystemWire, split_address


async def test_two_ends_speak_over_the_machines_network() -> None:
    wire = SystemWire()
    door = await wire.listen("127.0.0.1:0")
    near = await wire.connect(door.address, timeout_s=5)
    far = await door.accept()
    await near.write(b"hello")
    assert await far.read(100) == b"hello"
    await near.close()
    assert await far.read(100) == b""
    await far.close()
    await door.close()
    with pytest.raises(Unavailable):
        await wire.connect(door.address, timeout_s=5)


def test_addresses_are_host_and_port() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("host:8420") == ("host", 8420)
    for wrong in ("host", "host:", "host:port", "host:70000"):
        with pytest.raises(Misconfigured):
            split_address(wrong)
