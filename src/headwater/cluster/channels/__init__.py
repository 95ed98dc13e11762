"""Public channels: one application cluster sends events to another, to the node that owns an event's key (seed 001).

::

    async with OutboundChannel("clicks", identity, discover) as clicks:      # in the producer
        await clicks.send("user-1", b"...")
        await clicks.drain(5.0)

    channel = InboundChannel("clicks", identity, discover, count)            # in each consumer
    listener = await connection.listen("tcp://[_site_]:7512", identity, channel.serve)

``discover`` gives the newest ``Directory`` known: the nodes with their addresses and who owns which slot. It is asked
often and must be quick. Events go directly from node to node. The letters C and R are lines of
docs/decisions/0007-cluster.md's reference, jetstream.md §15.
"""
