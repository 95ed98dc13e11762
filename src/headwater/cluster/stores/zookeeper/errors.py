"""Errors of the driver and of the ensemble, as kit errors: one table."""

from __future__ import annotations

from kazoo import exceptions

from headwater.cluster.stores.address import Target
from headwater.kit.errors import HeadwaterError, Misconfigured, Unavailable

DRIVER = (exceptions.KazooException, OSError, TimeoutError)
"""All that the driver raises."""
OTHER_OWNER = "is not the one with which the nodes at {place} were made: they do not let this user in"


def translated(error: BaseException, target: Target) -> HeadwaterError:
    """What the caller should do about an error of the driver."""
    if isinstance(error, exceptions.NoAuthError | exceptions.AuthFailedError | exceptions.InvalidACLError):
        why = OTHER_OWNER.format(place=target.place) if target.user else "is missing: the nodes have an ACL"
        field = "cluster.store.password"
        return Misconfigured(f"{field}: {why}", code="store_misconfigured", field=field)
    why = str(error) or type(error).__name__
    return Unavailable(f"{target.place} does not answer: {why}", code="store_unavailable", place=target.place)
