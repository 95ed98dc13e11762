"""Many nodes: who is there, who owns which partition, and the stores where nodes find each other (protocol.md §9)."""
