"""Salted hashes of client addresses: one visitor can be told from another for a time, and found by nobody afterwards.

BLAKE2b, keyed with the salt, over the 16 bytes of the address (event/record.py), cut to 16 bytes. The salt is made and
rotated by the supervisor (node/salt.py) and is the same for all workers of a node. Without a salt no address is kept:
a hash that everybody can compute again would hide nothing, as there are only 2^32 IPv4 addresses.

Hashing takes about 1 µs, and clients repeat themselves, so hashes are remembered: at most ``CACHE_MAX``, forgotten with
their salt.
"""

from __future__ import annotations

from hashlib import blake2b

from headwater.collect.address import CACHE_MAX, NO_ADDRESS, Address
from headwater.event.record import ADDRESS_HASH, ADDRESS_NONE


class AddressHashes:
    """The hashes under one salt."""

    def __init__(self, salt: bytes | None) -> None:
        self.salt = salt
        self.known: dict[Address, Address] = {}

    def of(self, full: Address) -> Address:
        """In place of a whole address; NO_ADDRESS where there is none, or no salt."""
        found = self.known.get(full)
        if found is None:
            if self.salt is None or full.flags & ADDRESS_NONE:
                return NO_ADDRESS
            digest = blake2b(full.packed, digest_size=16, key=self.salt).digest()
            found = Address(digest, ADDRESS_HASH)
            if len(self.known) >= CACHE_MAX:
                self.known.clear()
            self.known[full] = found
        return found
