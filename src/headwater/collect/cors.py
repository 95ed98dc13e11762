"""Which pages may send and read answers (CORS), enforced: an origin that is not allowed is refused, not ignored.

`*` is answered with `Access-Control-Allow-Origin: *` and without credentials; a listed origin is answered with itself
and with credentials, which beacons always ask for (they carry nothing: no cookie is ever set or read).
Every answer that depends on Origin says `Vary: Origin`.
"""

from __future__ import annotations

from collections.abc import Iterable

ALLOWED_METHODS = "POST, GET, HEAD, OPTIONS"
ALLOWED_HEADERS = (
    "Authorization, Content-Encoding, Content-Type, X-Requested-With, X-Retry-Count, X-Write-Key"
)
EXPOSED_HEADERS = "Retry-After, X-Headwater-Receipt"


class Origins:
    """The origins of one key."""

    __slots__ = ("any", "exact", "suffixes")

    def __init__(self, origins: Iterable[str]) -> None:
        lowered = [origin.lower() for origin in origins]
        self.any = "*" in lowered
        self.exact = frozenset(origin for origin in lowered if "*" not in origin)
        self.suffixes = tuple(
            (scheme + "://", "." + host)
            for scheme, _, host in (origin.partition("://*.") for origin in lowered if "://*." in origin)
        )

    def allow(self, origin: str) -> bool:
        """Whether a page of this origin may send."""
        if self.any:
            return True
        origin = origin.lower()
        if origin in self.exact:
            return True
        return any(
            origin.startswith(scheme) and origin.endswith(suffix) and len(origin) > len(scheme) + len(suffix)
            and "/" not in origin[len(scheme) :]
            for scheme, suffix in self.suffixes
        )  # fmt: skip

    def lines(self, origin: str) -> str:
        """The header lines that let a page of an allowed origin read the answer."""
        if self.any:
            allowed = "Access-Control-Allow-Origin: *\r\n"
        else:
            allowed = f"Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
        return f"{allowed}Access-Control-Expose-Headers: {EXPOSED_HEADERS}\r\nVary: Origin\r\n"


NO_ORIGINS = Origins(())
EVERY_PAGE = Origins(("*",))


def preflight_lines(origins: Origins, origin: str, max_age_s: int) -> str:
    """Header lines of the answer to an allowed preflight."""
    return (
        f"{origins.lines(origin)}Access-Control-Allow-Methods: {ALLOWED_METHODS}\r\n"
        f"Access-Control-Allow-Headers: {ALLOWED_HEADERS}\r\nAccess-Control-Max-Age: {max_age_s}\r\n"
    )
