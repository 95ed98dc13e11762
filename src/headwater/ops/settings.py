"""Settings of the ops listener."""

from __future__ import annotations

import ipaddress

import msgspec

from headwater.kit.errors import Misconfigured

TOKEN_CHARACTERS_MIN = 16


class OpsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Health, metrics, status, SQL and the demo page. None of these reloads."""

    listen: str = "127.0.0.1:8421"
    """Address and port. Loopback by default; any other address asks for a `token`, since SQL is answered here."""
    token: str = ""
    """What `Authorization: Bearer` must carry, at least 16 characters. Empty: none is asked for (loopback only).
    `/ping`, `/health` and `/ready` never ask for it, so that load balancers can look."""
    hosts: list[str] = []
    """Further names by which this listener is reached. A request for another name is refused, so that no web page can
    reach it through a name of its own (DNS rebinding). Loopback names and the address of `listen` are always known."""
    demo: bool = True
    """Serve the demo page `/demo`, where the listener is loopback or the token is given. It needs a browser key."""
    sql_timeout_s: float = 60.0
    """Longest wait for an answer to SQL, seconds; the destination has its own, shorter limit."""
    request_bytes_max: int = 1024 * 1024
    """Largest body of a request, bytes."""

    def __post_init__(self) -> None:
        host, _ = host_and_port("ops.listen", self.listen)
        if self.token and len(self.token) < TOKEN_CHARACTERS_MIN:
            raise wrong(
                "ops.token", f"expected at least {TOKEN_CHARACTERS_MIN} characters", "headwater keys new -"
            )
        if not self.token and not is_loopback(host):
            raise wrong(
                "ops.token",
                f"is needed, since ops.listen ({self.listen}) can be reached from outside",
                "give a token, or listen on 127.0.0.1",
            )


def wrong(field: str, what: str, help: str = "") -> Misconfigured:
    """The one form of a settings error."""
    return Misconfigured(f"{field}: {what}", code="settings", help=help, field=field)


def host_and_port(field: str, listen: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as a pair."""
    host, _, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdecimal() or int(port) > 65_535 or (":" in bare and bare == host):
        raise wrong(field, f"expected host:port, like 127.0.0.1:8421 or [::1]:8421, got {listen!r}")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
