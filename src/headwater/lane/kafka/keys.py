"""Which partition a key goes to: murmur2, as Kafka's own Java client does it and as ours are told to.

For tools and for those who allocate partitions by hand; producing does not call this (the driver computes the same).
"""

from __future__ import annotations

SEED, MULTIPLIER, SHIFT, MASK = 0x9747B28C, 0x5BD1E995, 24, 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """MurmurHash2, 32 bits, with the seed of Kafka's clients."""
    value = SEED ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * MULTIPLIER & MASK
        word = (word ^ word >> SHIFT) * MULTIPLIER & MASK
        value = (value * MULTIPLIER & MASK) ^ word
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * MULTIPLIER & MASK
    value = (value ^ value >> 13) * MULTIPLIER & MASK
    return value ^ value >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
