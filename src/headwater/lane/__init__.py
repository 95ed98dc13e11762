"""The direct lane: raw logs of one node, mirrored on the nodes that own their events (protocol.md §6).

``blank`` leaves out of a block what belongs to others, ``home`` sends the blocks, ``mirror`` keeps them as a log folder
that ``LogReader`` reads as if the writer stood here. ``wire`` is what the two say to each other.
"""
