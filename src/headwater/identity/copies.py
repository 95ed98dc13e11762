"""Copies of stores of facts while they are written; apart from the stores, so that who copies needs no pyarrow."""

from __future__ import annotations

import os

import lmdb

from headwater.kit.errors import Unavailable


def copy_store(folder: str, target: str) -> None:
    """A store as it stands at one moment, in a new file, also while it is written."""
    environment = lmdb.open(folder, readonly=True, lock=True, create=False)
    try:
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            environment.copyfd(file, compact=True)
        finally:
            os.close(file)
    except lmdb.Error as error:
        raise Unavailable(f"{folder} cannot be read: {error}", code="identity_unreadable") from error
    finally:
        environment.close()
