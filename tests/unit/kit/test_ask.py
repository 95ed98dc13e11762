import asyncio
import os
import stat

import pytest

from headwater.kit import ask
from headwater.kit.errors import Busy, Rejected, Unavailable


async def echo(request):
    return {"told": request["say"]}, request.get("body", b"")


async def test_a_request_and_its_bytes_come_back(tmp_path):
    server = await ask.serve(f"{tmp_path}/a.sock", echo)
    reply, data = await ask.ask_async(server.path, {"say": "hé\nllo"}, 1.0, body=b"\x00\n\xff" * 1000)
    assert (reply, data) == ({"told": "hé\nllo"}, b"\x00\n\xff" * 1000)
    assert await asyncio.to_thread(ask.ask, server.path, {"say": 2}, 1.0) == ({"told": 2}, b"")
    await server.close()


async def test_the_socket_is_for_its_owner_only(tmp_path):
    server = await ask.serve(f"{tmp_path}/a.sock", echo)
    assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o600
    await server.close()
    assert "a.sock" not in os.listdir(tmp_path)


async def test_a_path_longer_than_a_socket_address_works(tmp_path):
    folder = tmp_path / ("long" * 30) / ("path" * 30)
    folder.mkdir(parents=True)
    server = await ask.serve(f"{folder}/a.sock", echo)
    assert len(server.path) > ask.PATH_BYTES_MAX
    assert (await ask.ask_async(server.path, {"say": 1}, 1.0))[0] == {"told": 1}
    assert (await asyncio.to_thread(ask.ask, server.path, {"say": 1}, 1.0))[0] == {"told": 1}
    await server.close()


async def test_an_error_of_the_handler_is_raised_with_its_own_class(tmp_path):
    async def refuse(request):
        if request["how"] == "busy":
            raise Busy("later", retry_after_s=7.0)
        raise Rejected("no such table", code="sql", help="try another", table="x")

    server = await ask.serve(f"{tmp_path}/a.sock", refuse)
    with pytest.raises(Rejected) as caught:
        await ask.ask_async(server.path, {"how": "no"}, 1.0)
    assert (caught.value.code, caught.value.help) == ("sql", "try another")
    with pytest.raises(Busy) as busy:
        await ask.ask_async(server.path, {"how": "busy"}, 1.0)
    assert busy.value.retry_after_s == 7.0
    await server.close()


async def test_nobody_there_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="no answer"):
        ask.ask(f"{tmp_path}/none.sock", {}, 0.2)
    with pytest.raises(Unavailable, match="no answer"):
        await ask.ask_async(f"{tmp_path}/none.sock", {}, 0.2)


async def test_a_silent_handler_is_unavailable_after_the_timeout(tmp_path):
    forever = asyncio.Event()

    async def hang(request):
        await forever.wait()
        return {}, b""

    server = await ask.serve(f"{tmp_path}/a.sock", hang)
    with pytest.raises(Unavailable):
        await ask.ask_async(server.path, {}, 0.05)
    await server.close(wait_s=0.05)


@pytest.mark.parametrize(
    "line", [b"[]\n", b"{\n", b'{"bytes": -1}\n', b'{"bytes": 1e99}\n', b'{"bytes": "1"}\n']
)
async def test_a_line_that_is_no_request_is_refused(tmp_path, line):
    server = await ask.serve(f"{tmp_path}/a.sock", echo)
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(line)
    reply = await ask.read_frame(reader)
    assert reply["error"]["kind"] == "Rejected"
    writer.close()
    await server.close()


async def test_a_stale_socket_file_is_replaced(tmp_path):
    first = await ask.serve(f"{tmp_path}/a.sock", echo)
    second = await ask.serve(f"{tmp_path}/a.sock", echo)
    assert (await ask.ask_async(second.path, {"say": 1}, 1.0))[0] == {"told": 1}
    await first.close()
    await second.close()


async def pieces_of(*, fails=None, closed=None):
    try:
        for number in range(3):
            yield bytes([number]) * 100_000
        if fails:
            raise fails
    finally:
        if closed is not None:
            closed.set()


async def test_a_reply_in_pieces_arrives_as_they_come_and_is_told_after_them(tmp_path):
    async def handler(request):
        return {"rows": 3}, pieces_of()

    server = await ask.serve(f"{tmp_path}/a.sock", handler)
    told: dict[str, object] = {}
    found = await asyncio.to_thread(lambda: list(ask.ask_pieces(server.path, {}, 1.0, told)))
    assert found == [bytes([number]) * 100_000 for number in range(3)]
    assert told == {"rows": 3}
    await server.close()


async def test_an_error_behind_some_pieces_is_raised_with_its_own_class(tmp_path):
    async def handler(request):
        return {"rows": 3}, pieces_of(fails=Rejected("too long", code="sql_time"))

    server = await ask.serve(f"{tmp_path}/a.sock", handler)
    told: dict[str, object] = {}
    found: list[bytes] = []

    def read():
        found.extend(ask.ask_pieces(server.path, {}, 1.0, told))

    with pytest.raises(Rejected, match="too long"):
        await asyncio.to_thread(read)
    assert (len(found), told) == (3, {})
    await server.close()


async def test_pieces_that_stop_in_the_middle_are_no_whole_reply(tmp_path):
    async def handler(request):
        return {}, pieces_of(fails=ConnectionError("gone"))

    server = await ask.serve(f"{tmp_path}/a.sock", handler)
    with pytest.raises(Unavailable):
        await asyncio.to_thread(lambda: list(ask.ask_pieces(server.path, {}, 1.0, {})))
    await server.close()


async def test_an_asker_that_leaves_closes_the_pieces(tmp_path):
    closed = asyncio.Event()

    async def endless():
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            closed.set()

    async def handler(request):
        return {}, endless()

    server = await ask.serve(f"{tmp_path}/a.sock", handler)
    made = ask.ask_pieces(server.path, {}, 1.0, {})
    assert len(await asyncio.to_thread(next, made)) == 1_000_000
    made.close()
    async with asyncio.timeout(5):
        await closed.wait()
    await server.close()
