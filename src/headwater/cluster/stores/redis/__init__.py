"""Redis as a coordination store: one server, with Sentinel, or a Cluster."""
