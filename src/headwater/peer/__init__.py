"""Connections between nodes: frames, authentication, addresses, credit. What is said on them is the users' matter."""
