"""Headwater collects events, keeps every one that it acknowledged, and lands each exactly once.

The walk through the folders is in ARCHITECTURE.md; the precise rules are quoted where they are kept.
"""

__version__ = "0.1.0"
