"""Asking the C library is never an error."""

import ctypes

import pytest

from headwater.kit import memory


def test_library_without_mallopt_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        pass

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Other())
    assert memory.keep_freed(1 << 20) is False
