"""Write keys: found by a keyed hash of the secret, compared in constant time, never written anywhere.

The table is built anew at each reload and is not changed afterwards; what is left of quotas moves over. A secret that
was found once is remembered by itself (at most as many as there are valid secrets), so that keys in bodies cost one
look-up: Python's hash of text is keyed per process, and only equal texts are compared.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Iterable
from hashlib import blake2b

from headwater.collect.cors import NO_ORIGINS, Origins
from headwater.collect.settings import KeySettings, check_secret, wrong
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import Rng

BURST_S = 10
"""Seconds of its rate that a quota may be ahead when the configuration does not say."""


class Quota:
    """A token bucket of events: this worker's share of a key's rate."""

    __slots__ = ("at_ns", "burst", "rate_per_s", "tokens")

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.tokens = burst
        self.at_ns = 0

    def wait_s(self, now_ns: int) -> int:
        """0 when events may be taken, else whole seconds until one may. A batch may overdraw; the next one waits."""
        if now_ns > self.at_ns:  # requests that were held back come with earlier times
            if self.at_ns:
                self.tokens = min(self.burst, self.tokens + (now_ns - self.at_ns) * 1e-9 * self.rate_per_s)
            self.at_ns = now_ns
        return 0 if self.tokens > 0 else max(1, math.ceil(-self.tokens / self.rate_per_s))

    def spend(self, events: int) -> None:
        """Events were taken."""
        self.tokens -= events


class Key:
    """A key as the door uses it."""

    __slots__ = (
        "ack",
        "address_policy",
        "browser",
        "destination",
        "id",
        "origins",
        "privacy",
        "quota",
        "require_origin",
    )

    def __init__(self, settings: KeySettings, *, address_policy: str, workers: int) -> None:
        self.id = settings.id
        self.browser = settings.browser
        self.origins = Origins(settings.origins) if settings.browser else NO_ORIGINS
        self.require_origin = settings.require_origin
        self.ack = settings.ack
        self.destination = settings.ack_destination
        self.address_policy = settings.client_address or address_policy
        self.privacy = settings.privacy
        self.quota: Quota | None = None
        if settings.events_per_s_max:
            rate = settings.events_per_s_max / workers
            burst = settings.burst_events / workers if settings.burst_events else rate * BURST_S
            self.quota = Quota(rate, max(1.0, burst))


class KeyTable:
    """All keys of one configuration."""

    def __init__(self, salt: bytes) -> None:
        self.salt = salt
        self.keys: dict[str, Key] = {}
        self.by_digest: dict[bytes, tuple[bytes, Key]] = {}
        self.seen: dict[str, Key] = {}

    @classmethod
    def build(
        cls,
        settings: Iterable[KeySettings],
        *,
        rng: Rng,
        read: Callable[[str], str],
        workers: int = 1,
        address_policy: str = "full",
        before: KeyTable | None = None,
    ) -> KeyTable:
        """The table of a configuration. ``read`` gives the text of a secret_file; OSError says it is not there.

        Misconfigured on a secret or id that stands twice. Quotas of ``before`` with the same rate go on.
        """
        table = cls(rng.u64().to_bytes(8, "little") + rng.u64().to_bytes(8, "little"))
        for one in settings:
            if one.id in table.keys:
                raise wrong("keys.id", "each id once", one.id)
            key = Key(one, address_policy=address_policy, workers=workers)
            table.keys[one.id] = key
            for secret in secrets_of(one, read):
                table.add(secret, key)
            if before is not None:
                table.carry_quota(key, before.keys.get(one.id))
        return table

    def add(self, secret: str, key: Key) -> None:
        digest = self.digest(secret)
        if digest[:16] in self.by_digest:
            other = self.by_digest[digest[:16]][1].id
            raise wrong(f"keys[{key.id}].secret", "a secret of its own", f"the one of {other!r}")
        self.by_digest[digest[:16]] = (digest, key)

    def carry_quota(self, key: Key, former: Key | None) -> None:
        new, old = key.quota, former.quota if former is not None else None
        if new is not None and old is not None and (new.rate_per_s, new.burst) == (old.rate_per_s, old.burst):
            key.quota = old

    def digest(self, secret: str) -> bytes:
        return blake2b(secret.encode("utf-8", "surrogateescape"), digest_size=32, key=self.salt).digest()

    def find(self, secret: str) -> Key | None:
        """The key of a secret, None when there is none."""
        key = self.seen.get(secret)
        if key is not None:
            return key
        digest = self.digest(secret)
        found = self.by_digest.get(digest[:16])
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        self.seen[secret] = found[1]
        return found[1]

    def allow_origin(self, origin: str) -> Origins | None:
        """The rule of some browser key that allows this origin; for preflights, which do not name their key."""
        for key in self.keys.values():
            if key.browser and key.origins.allow(origin):
                return key.origins
        return None


def secrets_of(settings: KeySettings, read: Callable[[str], str]) -> list[str]:
    """The secrets of a key, from the configuration or from its file."""
    if not settings.secret_file:
        return settings.secrets
    field = f"keys[{settings.id}].secret_file"
    try:
        lines = [line.strip() for line in read(settings.secret_file).splitlines()]
    except OSError as error:
        raise Misconfigured(
            f"{field}: cannot read {settings.secret_file}: {error.strerror}", code="settings", field=field
        ) from error
    secrets = [line for line in lines if line]
    if not 1 <= len(secrets) <= 2:
        raise wrong(field, "one secret, or two while rotating, one on each line", f"{len(secrets)} lines")
    for secret in secrets:
        check_secret(field, secret)
    return secrets
