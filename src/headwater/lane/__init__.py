"""The road between nodes: raw logs of one node, mirrored where their events' owners are (protocol.md §6), and calls to
whoever holds a destination (docs/decisions/0007-cluster.md).

``blank`` leaves out of a block what belongs to others, ``home`` sends the blocks, ``mirror`` keeps them as log folders
that ``LogReader`` reads as if the writer stood here; ``wire`` is what the two say to each other. ``progress`` is what
owners still need of a home's log. ``copies`` sends a raw log to other nodes' disks, ``copies_held`` keeps what others
send, ``copies_read`` finds and reads copies of a home that is away.
"""
