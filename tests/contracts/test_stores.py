"""One contract for every coordination store (cluster/stores/port.py), over real servers.

Nothing in a store is needed for safety; what is wanted is that it heals: one holder in the end, nodes seen again.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from headwater.cluster.stores import registry
from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.cluster.stores.port import VALUE_BYTES_MAX, Holder, Lease, Store, StoredTable
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.clock import SystemClock
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable
from headwater.kit.rng import SystemRng
from tests.parts import require_part
from tests.rigs.redis import Cluster, Sentinels, Single
from tests.rigs.zookeeper import ZooKeeper

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

T = TypeVar("T")
A, B = Holder("00000000000a0000", 7), Holder("00000000000b0000", 9)
CALL_S = 0.8
LATE_S = 0.5
"""How much later than its deadline a call may return on a busy machine, the closing of its connection included."""
TTL_S = 0.5
HEAL_S = 15.0
LONG_S = 30.0
REDIS_SECRET = "redis-secret-80"
WRONG = "wrong-secret-99"


class Memory:
    """The board of one process, as a rig."""

    def __init__(self) -> None:
        self.board = Board()

    def up(self) -> None:
        self.board.down = False

    def heal(self) -> None:
        self.up()

    def down(self) -> None:
        self.board.down = True

    freeze, thaw = down, up

    def close(self) -> None:
        pass


RIGS: dict[str, tuple[tuple[str, ...], Callable[[Path], Any]]] = {
    "memory": ((), lambda folder: Memory()),
    "redis": (("redis",), lambda folder: Single(folder, password=REDIS_SECRET)),
    "sentinel": (("redis", "redis-sentinel"), Sentinels),
    "cluster": (("redis",), Cluster),
    "zookeeper": (("java", "zookeeper"), ZooKeeper),
    "ensemble": (("java", "zookeeper"), lambda folder: ZooKeeper(folder, 3)),
}
REAL = [name for name in RIGS if name != "memory"]
MANY = [name for name in REAL if name not in ("redis", "zookeeper")]


class Subject:
    """A rig, and stores on it that are closed in the end. Each test has a cluster of its own."""

    def __init__(self, name: str, rig: Any, cluster: str) -> None:
        self.name = name
        self.rig = rig
        self.cluster = cluster
        self.made: list[Store] = []

    def settings(self, **changed: Any) -> StoreSettings:
        session = {"session_timeout_s": 1.0} if self.name in ("zookeeper", "ensemble") else {}
        return StoreSettings(**{"call_timeout_s": CALL_S, **session, **self.rig.settings, **changed})

    def store(self, cluster: str = "", **changed: Any) -> Store:
        """One contender."""
        name = cluster or self.cluster
        if isinstance(self.rig, Memory):
            made: Store = MemoryStore(self.rig.board, name, SystemClock(), SystemRng())
        else:
            made = registry.make(self.settings(**changed), name)
        self.made.append(made)
        return made

    async def close(self) -> None:
        for store in self.made:
            await store.close()


@pytest.fixture(scope="session")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """The rigs by name, each started when it is first asked for."""
    made: dict[str, Any] = {}

    def rig(name: str) -> Any:
        parts, make = RIGS[name]
        for part in parts:
            require_part(part)
        if name not in made:
            made[name] = make(tmp_path_factory.mktemp(name))
        made[name].heal()
        return made[name]

    yield rig
    for one in made.values():
        one.close()


CLUSTERS = itertools.count(1)


@pytest.fixture(params=[name for name in RIGS if name != "ensemble"])  # which answers like one ZooKeeper
async def subject(request: pytest.FixtureRequest, rigs: Callable[[str], Any]) -> AsyncIterator[Subject]:
    one = Subject(request.param, rigs(request.param), f"c{next(CLUSTERS)}")
    yield one
    one.rig.heal()
    await one.close()


def over(names: list[str]) -> pytest.MarkDecorator:
    """Of the rigs, these only."""
    return pytest.mark.parametrize("subject", names, indirect=True)


async def eventually(work: Callable[[], Awaitable[T]], within_s: float = HEAL_S) -> T:
    """The first result, ``Unavailable`` on the way being what a caller must bear."""
    end = time.monotonic() + within_s
    while True:
        try:
            return await work()
        except Unavailable:
            assert time.monotonic() < end, f"not within {within_s} s: {traceback.format_exc()}"
            await asyncio.sleep(0.1)


async def until(true: Callable[[], Awaitable[bool]], within_s: float = HEAL_S) -> None:
    end = time.monotonic() + within_s
    while not await eventually(true):
        assert time.monotonic() < end, f"not within {within_s} s"
        await asyncio.sleep(0.05)


CALLS: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: store.put_node(A.node, b"record", LONG_S),
    lambda store: store.beat(A.node, LONG_S),
    lambda store: store.nodes(),
    lambda store: store.remove_node(A.node),
    lambda store: store.acquire(A, LONG_S),
    lambda store: store.renew(Lease(A, "token", 1.0), LONG_S),
    lambda store: store.release(Lease(A, "token", 1.0)),
    lambda store: store.leader(),
    lambda store: store.table(),
    lambda store: store.put_table(1, b"table"),
    lambda store: store.configuration(),
    lambda store: store.put_configuration(b"configuration"),
    lambda store: store.lock("task", LONG_S),
    lambda store: store.clear(),
]


# Nodes


async def test_a_record_that_nobody_renews_disappears_and_others_stay(subject: Subject) -> None:
    """M2."""
    here, there = subject.store(), subject.store()
    await here.put_node(A.node, b"a", TTL_S)
    await there.put_node(B.node, b"b\0\xff", LONG_S)
    assert await here.nodes() == await there.nodes() == {A.node: b"a", B.node: b"b\0\xff"}
    began = time.monotonic()
    await until(lambda: is_equal(there.nodes, {B.node: b"b\0\xff"}), 3)
    assert time.monotonic() - began > TTL_S / 2
    assert not await here.beat(A.node, LONG_S), "an expired record cannot be renewed"


async def test_heartbeats_keep_a_record(subject: Subject) -> None:
    store = subject.store()
    await store.put_node(A.node, b"a", TTL_S)
    for _ in range(8):
        await asyncio.sleep(TTL_S / 4)
        assert await store.beat(A.node, TTL_S)
    assert await store.nodes() == {A.node: b"a"}


async def test_a_node_replaces_and_removes_its_own_record(subject: Subject) -> None:
    store, restarted = subject.store(), subject.store()
    assert await store.nodes() == {}
    await store.put_node(A.node, b"first", LONG_S)
    await store.put_node(A.node, b"second", LONG_S)
    assert await store.nodes() == {A.node: b"second"}
    await restarted.put_node(A.node, b"third", LONG_S)
    assert await store.nodes() == {A.node: b"third"}, (
        "the next process of a node does not wait for the last one"
    )
    await store.close()
    await asyncio.sleep(TTL_S)  # a session's end takes effect after its owner has been told
    assert await restarted.nodes() == {A.node: b"third"}, "nor does its record go with it"
    await restarted.remove_node(A.node)
    await restarted.remove_node(A.node)
    assert await restarted.nodes() == {}


async def test_clusters_of_other_names_are_not_seen(subject: Subject) -> None:
    store, other = subject.store(), subject.store(cluster=f"{subject.cluster}-other")
    await store.put_node(A.node, b"a", LONG_S)
    await store.put_table(3, b"t")
    assert await store.acquire(A, LONG_S)
    assert await store.lock("task", LONG_S)
    assert (await other.nodes(), await other.table(), await other.leader()) == ({}, None, None)
    assert await other.acquire(B, LONG_S)
    assert await other.lock("task", LONG_S)


async def test_clearing_forgets_this_cluster_only(subject: Subject) -> None:
    store, other = subject.store(), subject.store(cluster=f"{subject.cluster}-other")
    for one in (store, other):
        await one.put_node(A.node, b"a", LONG_S)
        await one.put_table(3, b"t")
        await one.put_configuration(b"c")
        assert await one.acquire(A, LONG_S)
    await store.clear()
    await store.clear()
    assert (await store.nodes(), await store.table(), await store.leader()) == ({}, None, None)
    assert await store.configuration() is None
    assert (await other.nodes(), await other.leader()) == ({A.node: b"a"}, A)
    assert (await other.table(), await other.configuration()) == (StoredTable(3, b"t"), b"c")


# The leader's lease


async def test_of_many_contenders_one_gets_the_lease(subject: Subject) -> None:
    contenders = [(subject.store(), Holder(f"{n:016x}", n)) for n in range(1, 7)]
    await asyncio.gather(*(store.nodes() for store, _ in contenders))  # all are connected
    got = await asyncio.gather(*(store.acquire(holder, LONG_S) for store, holder in contenders))
    (lease,) = [lease for lease in got if lease is not None]
    for store, _ in contenders:
        assert await store.leader() == lease.holder


async def test_a_lease_is_renewed_by_its_holder_and_runs_out_without(subject: Subject) -> None:
    here, there = subject.store(), subject.store()
    lease = await here.acquire(A, TTL_S)
    assert lease is not None
    assert 0 < lease.valid_s <= TTL_S
    for _ in range(6):
        await asyncio.sleep(TTL_S / 4)
        assert await here.renew(lease, TTL_S)
        assert await there.acquire(B, TTL_S) is None
    await until(lambda: is_equal(there.leader, None), 3)
    assert not await here.renew(lease, TTL_S), "what has run out is acquired, not renewed"


async def test_a_paused_holders_late_renewal_fails_when_another_took_the_lease(subject: Subject) -> None:
    """M3."""
    paused, other = subject.store(), subject.store()
    lease = await paused.acquire(A, TTL_S)
    assert lease is not None
    await until(lambda: is_set(other.acquire(B, LONG_S)), 3)
    assert not await paused.renew(lease, LONG_S)
    assert not await paused.release(lease)
    assert await paused.acquire(A, LONG_S) is None
    assert await other.leader() == B


async def test_a_lease_is_released_by_its_token_only(subject: Subject) -> None:
    here, there = subject.store(), subject.store()
    lease = await here.acquire(A, LONG_S)
    assert lease is not None
    stranger = Lease(A, "somebody-elses", 1.0)
    assert not await there.release(stranger)
    assert not await there.renew(stranger, LONG_S)
    assert await there.acquire(A, LONG_S) is None, "not even under the same node's name"
    assert await there.leader() == A
    assert await here.release(lease)
    assert not await here.release(lease)
    assert await there.acquire(B, LONG_S)


async def test_the_lease_is_taken_from_the_node_that_is_named_and_from_no_other(subject: Subject) -> None:
    here, there = subject.store(), subject.store()
    lease = await here.acquire(A, LONG_S)
    assert lease is not None
    assert not await there.depose(B.node)
    assert not await there.depose(A.node[:-1]), "a part of its name is another node"
    assert await there.leader() == A
    assert await there.depose(A.node)
    assert not await there.depose(A.node)
    assert await there.acquire(B, LONG_S)
    assert not await here.renew(lease, LONG_S)
    assert await there.leader() == B


async def test_a_store_that_does_not_know_whether_it_got_the_lease_asks_again(subject: Subject) -> None:
    store = subject.store()
    first, second = await store.acquire(A, LONG_S), await store.acquire(A, LONG_S)
    assert first == second is not None


@over(REAL)
async def test_a_process_that_was_stopped_finds_its_lease_taken(subject: Subject) -> None:
    """M2, M3: a real process, with SIGSTOP."""
    holder = holder_process(subject)
    try:
        assert holder.stdout
        assert (await asyncio.to_thread(holder.stdout.readline)).strip() == b"held"
        other = subject.store()
        assert await other.acquire(B, LONG_S) is None
        holder.send_signal(signal.SIGSTOP)
        await until(lambda: is_set(other.acquire(B, LONG_S)), 8)
        assert await other.nodes() == {}, "its record is gone as well"
        holder.send_signal(signal.SIGCONT)
        assert (await asyncio.to_thread(holder.stdout.readline)).strip() == b"lost"
        assert await other.leader() == B
    finally:
        holder.kill()
        holder.communicate()


def holder_process(subject: Subject) -> subprocess.Popen[bytes]:
    """A process that holds the lease (store_holder.py)."""
    script = str(Path(__file__).parent / "store_holder.py")
    process = subprocess.Popen(
        [sys.executable, script, subject.cluster], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(msgspec.json.encode(subject.settings(call_timeout_s=5.0)) + b"\n")
    process.stdin.flush()
    return process


# Table, configuration, locks


async def test_a_table_gives_way_to_a_greater_epoch_only(subject: Subject) -> None:
    """M3."""
    here, there = subject.store(), subject.store()
    assert await here.table() is None
    assert await here.put_table(9, b"nine")
    assert await here.put_table(9, b"nine"), "repeating is no conflict"
    assert not await there.put_table(9, b"another")
    assert not await there.put_table(8, b"eight")
    assert await there.table() == StoredTable(9, b"nine")
    assert await there.put_table(10, b"ten")
    assert await there.put_table((1 << 64) - 2, b"but one")
    assert await there.put_table((1 << 64) - 1, b"last"), "beyond what a double tells apart"
    assert not await here.put_table((1 << 64) - 2, b"but one")
    assert await here.table() == StoredTable((1 << 64) - 1, b"last")


async def test_tables_put_at_once_leave_the_greatest(subject: Subject) -> None:
    stores = [subject.store() for _ in range(3)]
    puts = (stores[epoch % 3].put_table(epoch, b"%d" % epoch) for epoch in range(1, 13))
    done = await asyncio.gather(*puts, return_exceptions=True)
    assert all(one is True or one is False or isinstance(one, Unavailable) for one in done)
    refused = [epoch for epoch, one in enumerate(done, 1) if isinstance(one, Unavailable)]
    (stored,) = {await store.table() for store in stores}
    assert stored
    assert stored.epoch == max(epoch for epoch in range(1, 13) if epoch not in refused)
    assert stored.table == b"%d" % stored.epoch


async def test_a_configuration_is_what_was_put_last(subject: Subject) -> None:
    here, there = subject.store(), subject.store()
    assert await here.configuration() is None
    for value in (b"one", b"", bytes(range(256)) * (VALUE_BYTES_MAX // 256)):
        await here.put_configuration(value)
        assert await there.configuration() == value


async def test_a_value_that_not_every_store_takes_is_refused(subject: Subject) -> None:
    store = subject.store()
    large = bytes(VALUE_BYTES_MAX + 1)
    for put in (store.put_configuration(large), store.put_table(1, large), store.put_node(A.node, large, 1)):
        with pytest.raises(Rejected, match=f"{VALUE_BYTES_MAX + 1} bytes"):
            await put
    for name in ("", "a/b", "..", "a b", "x" * 65):
        with pytest.raises(Misconfigured, match="letters"):
            await store.put_node(name, b"", 1)


async def test_a_lock_is_held_by_one_and_returned_by_its_token(subject: Subject) -> None:
    here, there = subject.store(), subject.store()
    lock = await here.lock("task", LONG_S)
    assert lock is not None
    assert await there.lock("task", LONG_S) is None
    assert await here.lock("task", LONG_S) is None, "two tasks of one process are two"
    assert await there.lock("another", LONG_S)
    assert not await there.unlock(type(lock)("task", "somebody-elses"))
    assert await here.unlock(lock)
    assert not await here.unlock(lock)
    short = await there.lock("task", TTL_S)
    assert short is not None
    await until(lambda: is_set(here.lock("task", LONG_S)), 3)
    assert not await there.unlock(short)


# Trouble


async def test_a_store_that_is_down_is_unavailable_within_the_deadline_and_comes_back(
    subject: Subject,
) -> None:
    store, fresh = subject.store(), subject.store()
    await store.put_node(A.node, b"a", LONG_S)
    await asyncio.to_thread(subject.rig.down)
    await asyncio.gather(*(fails_in_time(call(one)) for call in CALLS for one in (store, fresh)))
    await fails_in_time(store.nodes())
    await asyncio.to_thread(subject.rig.up)
    for one in (store, fresh):
        await eventually(lambda one=one: one.put_node(A.node, b"again", LONG_S))  # type: ignore[misc]
        assert await eventually(one.nodes) == {A.node: b"again"}
    assert await eventually(lambda: store.acquire(A, LONG_S))


async def test_a_store_that_hangs_is_unavailable_within_the_deadline_and_comes_back(subject: Subject) -> None:
    store, fresh = subject.store(), subject.store()
    await store.put_node(A.node, b"a", LONG_S)
    subject.rig.freeze()
    try:
        for one in (store, fresh, store):
            await fails_in_time(one.nodes())
    finally:
        subject.rig.thaw()
    for one in (store, fresh):
        await eventually(lambda one=one: one.put_node(A.node, b"again", LONG_S))  # type: ignore[misc]
        assert await eventually(one.nodes) == {A.node: b"again"}


@over(MANY)
async def test_calls_succeed_again_seconds_after_the_master_was_killed(subject: Subject) -> None:
    store, other = subject.store(), subject.store()
    await store.put_table(5, b"five")
    await store.put_node(A.node, b"a", LONG_S)
    lease = await store.acquire(A, LONG_S)
    assert lease is not None
    await asyncio.sleep(0.2)  # replicas have it
    kill_master(subject)
    began = time.monotonic()
    assert await eventually(lambda: store.put_table(6, b"six"))
    assert time.monotonic() - began < HEAL_S
    await eventually(lambda: store.put_node(A.node, b"a", LONG_S))
    assert await eventually(other.nodes) == {A.node: b"a"}
    assert await eventually(other.table) == StoredTable(6, b"six")
    assert await eventually(lambda: store.renew(lease, LONG_S)), "no more was lost than a moment's writes"
    assert await eventually(lambda: other.acquire(B, LONG_S)) is None


@over(["sentinel"])
async def test_the_other_sentinels_are_found_through_one(subject: Subject) -> None:
    store = subject.store()
    await store.put_table(1, b"one")
    given = subject.rig.sentinel_ports[0]
    subject.rig.sentinels[given].kill()
    assert len(subject.settings().target.addresses) == 1
    await store.close()  # as after a failure: the way is looked for anew
    assert await eventually(store.table) == StoredTable(1, b"one")


@over(["sentinel"])
async def test_sentinels_are_given_by_name_of_the_master_too(subject: Subject) -> None:
    ports = subject.rig.sentinel_ports
    apart = {
        "nodes": [f"127.0.0.1:{port}" for port in ports],
        "sentinel_master_name": subject.rig.master_name,
    }
    await subject.store(url="", password=subject.rig.password, **apart).put_table(2, b"two")
    assert await subject.store().table() == StoredTable(2, b"two")
    with pytest.raises(Misconfigured, match=r"sentinel_master_name: .* watches no 'other'"):
        wrong = {**apart, "sentinel_master_name": "other"}
        await subject.store(url="", password=subject.rig.password, **wrong).nodes()


@over(["redis"])
async def test_a_redis_put_back_to_an_older_dump_is_only_older_and_publishing_heals_it(
    subject: Subject,
) -> None:
    """protocol.md §15.5, for the store alone."""
    store, other = subject.store(), subject.store()
    await store.put_node(A.node, b"old", LONG_S)
    await store.put_table(5, b"five")
    old = await store.acquire(A, LONG_S)
    assert old is not None
    older = subject.rig.save()
    assert await store.release(old)
    new = await other.acquire(B, LONG_S)
    assert new is not None
    await store.put_node(A.node, b"new", LONG_S)
    await other.put_node(B.node, b"b", LONG_S)
    assert await other.put_table(6, b"six")

    subject.rig.put_back(older)
    assert await eventually(store.table) == StoredTable(5, b"five"), "older, and nothing else"
    assert await store.nodes() == {A.node: b"old"}
    assert await store.leader() == A, "a lease that was given back is held again"
    assert not await other.renew(new, LONG_S), "and the later holder learns that it is not"

    assert await other.put_table(6, b"six")
    await store.put_node(A.node, b"new", LONG_S)
    await other.put_node(B.node, b"b", LONG_S)
    assert await store.table() == StoredTable(6, b"six")
    assert await store.nodes() == {A.node: b"new", B.node: b"b"}
    assert await store.acquire(A, LONG_S), "its old holder may take it up again"


@over(REAL)
async def test_a_wrong_password_is_misconfigured_and_names_the_setting(subject: Subject) -> None:
    await subject.store().put_table(1, b"made by the right one")
    for wrong in (WRONG, ""):
        with pytest.raises(Misconfigured) as caught:
            await subject.store(**with_password(subject, wrong)).put_table(2, b"two")
        assert caught.value.fields["field"] == "cluster.store.password"
        assert str(caught.value).startswith("cluster.store.password: is ")


@over(REAL)
async def test_no_password_stands_in_errors_and_reprs(subject: Subject) -> None:
    secrets = [secret_of(subject.settings()), WRONG]
    settings = subject.settings(**with_password(subject, WRONG))
    store = subject.store()
    await store.put_table(1, b"made by the right one")
    said = [repr(subject.settings()), repr(settings), repr(settings.target), store.place, repr(store)]
    said.append(repr(await store.acquire(A, LONG_S)))
    secrets.append(store.token)  # type: ignore[attr-defined]
    with pytest.raises(HeadwaterError) as caught:
        await subject.store(**with_password(subject, WRONG)).put_table(2, b"two")
    said += traceback.format_exception(caught.value)
    await asyncio.to_thread(subject.rig.down)
    for one in (store, subject.store()):
        with pytest.raises(Unavailable) as unavailable:
            await one.nodes()
        said += traceback.format_exception(unavailable.value)
    assert not [secret for secret in secrets if any(secret in text for text in said)]


@over(["redis", "cluster"])
async def test_one_server_of_a_cluster_and_the_reverse_are_told_apart(subject: Subject) -> None:
    if subject.name == "redis":
        changed: dict[str, Any] = {"url": "", "nodes": [f"127.0.0.1:{subject.rig.port}"]}
        wanted = "cluster.store.nodes: names a server that is no Redis Cluster"
    else:
        changed = {"nodes": [], "url": f"redis://127.0.0.1:{subject.rig.ports[0]}"}
        wanted = "cluster.store.nodes: is missing: the server is one of a Redis Cluster"
    with pytest.raises(Misconfigured, match=wanted):
        for n in range(20):  # a key whose slot lies elsewhere
            await subject.store(cluster=f"other{n}", **changed).put_configuration(b"c")


@over(["redis"])
async def test_a_database_that_is_not_there_names_the_setting(subject: Subject) -> None:
    with pytest.raises(Misconfigured, match=r"cluster\.store\.database: is not there"):
        await subject.store(database=999).nodes()
    await subject.store(database=3).put_configuration(b"three")
    assert await subject.store().configuration() is None


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that vouches for itself."""
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


async def test_redis_is_reached_by_tls_and_its_certificate_is_checked(
    tmp_path: Path, certificates: Path
) -> None:
    server = Single(tmp_path, password=REDIS_SECRET)
    cert, key = str(certificates / "cert.pem"), str(certificates / "key.pem")
    at = server.server.command.index("--port")
    server.server.command[at : at + 2] = [
        "--port", "0", "--tls-port", str(server.port), "--tls-cert-file", cert, "--tls-key-file", key,
        "--tls-auth-clients", "no",
    ]  # fmt: skip
    server.server.start()
    url = f"rediss://:{REDIS_SECRET}@127.0.0.1:{server.port}"
    stores = {
        "checked": registry.make(StoreSettings(url=url, tls_ca_file=cert)),
        "unchecked": registry.make(StoreSettings(url=url, tls_skip_verify=True)),
        "unknown": registry.make(StoreSettings(url=url)),
    }
    plainly = registry.make(StoreSettings(url=url.replace("rediss", "redis")))
    try:
        await eventually(lambda: stores["checked"].put_configuration(b"c"))
        assert await stores["unchecked"].configuration() == b"c"
        with pytest.raises(Misconfigured, match=r"cluster\.store\.tls_ca_file: does not vouch"):
            await stores["unknown"].configuration()
        with pytest.raises(Unavailable):
            await plainly.configuration()
    finally:
        for store in (*stores.values(), plainly):
            await store.close()
        server.close()


async def fails_in_time(call: Awaitable[object]) -> None:
    """It is Unavailable, and not later than it may be."""
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await call
    assert time.monotonic() - began < CALL_S + LATE_S


async def is_equal(call: Callable[[], Awaitable[object]], value: object) -> bool:
    return await call() == value


async def is_set(call: Awaitable[object]) -> bool:
    return await call is not None


def kill_master(subject: Subject) -> None:
    if subject.name == "cluster":
        subject.rig.kill_master_of(f"headwater:{{{subject.cluster}}}:table")
    else:
        subject.rig.kill_master()


def secret_of(settings: StoreSettings) -> str:
    password = settings.target.password
    assert password
    return password


def with_password(subject: Subject, password: str) -> dict[str, Any]:
    """The settings with another password, where it stands."""
    if subject.name == "sentinel":
        url = subject.rig.settings["url"].replace(f":{subject.rig.password}@", f":{password}@")
        return {"url": url}
    if subject.name in ("zookeeper", "ensemble") and not password:
        return {"user": "", "password": ""}
    return {"password": password}
