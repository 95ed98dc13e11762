"""The road between nodes: events to the owners of their partitions, calls to whoever holds a destination (0007)."""
