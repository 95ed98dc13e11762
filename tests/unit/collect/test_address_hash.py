"""Hashed addresses: alike under one salt, unlike under the next, nothing without one."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from headwater.collect.address import CACHE_MAX, NO_ADDRESS, Address, by_policy
from headwater.collect.address_hash import AddressHashes
from headwater.collect.settings import KeySettings
from headwater.event.record import ADDRESS_HASH
from tests.unit.collect.harness import SERVER, Bench, post

SALT, NEXT = b"s" * 32, b"t" * 32
HASHED = (KeySettings(id="srv", secret=SERVER, client_address="hashed"),)


def full(text: str) -> Address:
    return by_policy(ipaddress.ip_address(text))["full"]


@given(st.ip_addresses(), st.ip_addresses())
def test_hashes_are_alike_exactly_where_addresses_are(one: ipaddress.IPv4Address, two: object) -> None:
    hashes, others = AddressHashes(SALT), AddressHashes(SALT)
    first, second = hashes.of(full(str(one))), others.of(full(str(two)))
    assert (first == second) is (one == two)
    assert first == hashes.of(full(str(one))) != AddressHashes(NEXT).of(full(str(one)))
    assert first.flags == ADDRESS_HASH
    assert len(first.packed) == 16


def test_no_address_and_no_salt_keep_nothing() -> None:
    assert AddressHashes(SALT).of(NO_ADDRESS) == NO_ADDRESS
    assert AddressHashes(None).of(full("198.51.100.1")) == NO_ADDRESS


def test_remembered_hashes_are_bounded() -> None:
    hashes = AddressHashes(SALT)
    for number in range(CACHE_MAX + 10):
        hashes.of(Address(number.to_bytes(16, "big"), 0))
    assert len(hashes.known) <= CACHE_MAX


def test_records_of_a_hashing_key_hold_the_hash_of_whoever_sent_them() -> None:
    bench = Bench(HASHED, trusted_proxies=["10.0.0.0/8"])
    bench.door.hash_with(SALT)
    data = post("/v1/track", b'{"event":"x","anonymousId":"a"}', "X-Forwarded-For: 198.51.100.1", key=SERVER)
    bench.ask(data, peer="10.0.0.7")
    bench.ask(post(key=SERVER), peer="198.51.100.1")
    bench.ask(post(key=SERVER), peer="198.51.100.2")
    first, second, third = bench.log.records
    assert first.address == second.address == AddressHashes(SALT).of(full("198.51.100.1")).packed
    assert third.address != first.address
    assert {record.flags & ADDRESS_HASH for record in bench.log.records} == {ADDRESS_HASH}


def test_connection_that_stays_open_goes_over_to_the_next_salt() -> None:
    bench = Bench(HASHED)
    client = bench.client("198.51.100.1")
    for salt in (SALT, NEXT, SALT):
        bench.door.hash_with(salt)
        client.send(post(key=SERVER))
    before, after, again = (record.address for record in bench.log.records)
    assert before == again != after


def test_worker_without_a_salt_keeps_no_address_of_a_hashing_key() -> None:
    bench = Bench(HASHED)
    bench.ask(post(key=SERVER))
    assert (bench.log.records[0].address, bench.log.records[0].flags & 32) == (bytes(16), 32)
