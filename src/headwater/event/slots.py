"""Slots and partitions (protocol.md §1): slot = xxh3_64(affinity key) mod 4096, partition = slot mod P.

The affinity key is the anonymous id, then the id that an alias replaces, then the user id, then the message id; one
function, used at the door and by everything later, so that one visitor is never in two partitions (protocol-why.md L8).
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

SLOTS = 4096
PARTITIONS_DEFAULT = 64
NO_SLOT = 0xFFFF
"""Stamp of an event that names none of the three ids: the reader takes the slot of its derived message id."""


def slot_of(key: str | bytes) -> int:
    """The slot of an affinity key."""
    return xxh3_64_intdigest(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key) & (
        SLOTS - 1
    )


def affinity(anonymous_id: object, previous_id: object, user_id: object, message_id: object) -> str | None:
    """The affinity key of an event, from its ids as text or number; None when it has none of them."""
    for value in (anonymous_id, previous_id, user_id, message_id):
        if value is not None and value != "":
            return value if isinstance(value, str) else str(value)
    return None
