"""Public channels: one application cluster sends events to another, to the node that owns an event's key (seed 001).

::

    async with Watch("clicks", identity, store) as watch:                    # in the producer
        async with OutboundChannel("clicks", identity, watch.directory) as clicks:
            await clicks.send("user-1", b"...")
            await clicks.drain(5.0)

    async with Member("clicks", identity, store) as member:                  # in each consumer
        channel = InboundChannel("clicks", identity, member.directory, count)
        listener = await connection.listen("tcp://[_site_]:7512", identity, channel.serve)
        await member.join(listener.address)

Channels ask for the newest ``Directory`` often: the nodes with their addresses and who owns which slot. It comes from
``discovery``, or from the application itself. Events go directly from node to node.

Walk: ``topic`` (slots, owners) · ``shares`` (the table, pure) → ``discovery`` · ``road`` (to one consumer) →
``outbound`` · ``inbound`` · ``advisory`` (who is slow) · ``advice`` (the listener that keeps what cannot be delivered)
→ ``spooling`` (what goes there, and until when) · ``replay`` and ``stops``. Kafka's part is in ``lane/kafka``. The
letters C and R are lines of docs/semantics.md.
"""
