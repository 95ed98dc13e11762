"""Errors, named by what the caller does next.

Every error has a stable ``code``, typed ``fields`` and one line of ``help``. Errors of drivers are translated
into these at one edge, chained with ``from``.
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """Base of all errors that Headwater raises on purpose."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, help: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.help = help
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message} ({self.help})" if self.help else self.message


class Rejected(HeadwaterError):
    """Wrong, and stays wrong however often it is tried: answer 4xx, or keep it as a dead letter."""

    code = "rejected"


class Busy(HeadwaterError):
    """No room now: answer 429 or 503 with Retry-After, or wait in order."""

    code = "busy"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        code: str | None = None,
        help: str = "",
        **fields: object,
    ) -> None:
        super().__init__(message, code=code, help=help, **fields)
        self.retry_after_s = retry_after_s


class Unavailable(HeadwaterError):
    """A dependency does not answer: back off and try again."""

    code = "unavailable"


class Lost(HeadwaterError):
    """No longer the owner: stop, and ask who is."""

    code = "lost"


class Misconfigured(HeadwaterError):
    """An operator must act: refuse to start, or pause the part and say so."""

    code = "misconfigured"


class Broken(HeadwaterError):
    """An invariant does not hold: stop the part that saw it, keep the evidence."""

    code = "broken"
