"""Kafka, as a lane between nodes and as channels that anybody may use.

``produce`` and ``consume`` are the public channels: events go in and are awaited until the broker has them; they come
out as micro-batches that a sink accepts, holds, or sends back. ``lane`` is what the nodes say to each other through
a topic (docs/decisions/0007-cluster.md, "Kafka lane"; node/kafka puts it together). The driver (confluent-kafka, extra
``kafka``) is imported below this folder only.

Walk: ``settings`` · ``driver`` (configuration and errors of librdkafka, one place) · ``keys`` (which partition a key
goes to) · ``produce`` · ``sink`` (the contract) → ``part`` (one partition: what waits, what is done; pure) → ``work``
(one partition: retry, bisect, dead letters) → ``consume`` (the group, the thread that polls, commits) ·
``begin`` (where reading begins; pure) · ``allocate`` (who reads what; pure) · ``rate``. The lane: ``topic`` ·
``record`` (what is in it) · ``home`` (produces) · ``spool`` (what came, for mirrors) · ``lane`` (both together). For
public channels: ``advice`` (keeps what cannot be delivered) · ``replay`` (delivers it).

Letters with numbers in brackets (K1–K9) are lines of the semantic specification; the tests carry them in their names.
"""
