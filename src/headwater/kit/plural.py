"""Counting in words."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 key``, ``2 keys``, ``0 keys``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
