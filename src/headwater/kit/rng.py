"""Randomness, as an argument: the machine's, or a seeded one in simulations."""

from __future__ import annotations

import os
import random
import secrets
from typing import Protocol


class Rng(Protocol):
    """Where randomness comes from."""

    def u64(self) -> int: ...
    def below(self, limit: int) -> int: ...
    def token(self, length_bytes: int) -> str: ...


class SystemRng:
    """The machine's randomness; good enough for secrets."""

    def u64(self) -> int:
        return int.from_bytes(os.urandom(8), "big")

    def below(self, limit: int) -> int:
        return secrets.randbelow(limit)

    def token(self, length_bytes: int) -> str:
        return secrets.token_urlsafe(length_bytes)


class SeededRng:
    """Reproducible; for tests and simulations only."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def u64(self) -> int:
        return self.random.getrandbits(64)

    def below(self, limit: int) -> int:
        return self.random.randrange(limit)

    def token(self, length_bytes: int) -> str:
        return f"{self.random.getrandbits(8 * length_bytes):0{2 * length_bytes}x}"
