"""ZooKeeper as a coordination store."""
