"""Coordination stores: where nodes find each other and a leader holds its lease (protocol.md §9)."""
