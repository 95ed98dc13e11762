"""State on two nodes: what a processor has counted and seen is also kept by its standby (protocol.md §7, 0007).

``source`` reads a processor's state folder and ready log, beside it; ``sink`` makes of what it tells a folder of the
same form on another node; ``serve`` and ``keeper`` are the two ends of the connection between them, ``both`` is what
the lane role has of them; ``retire`` says when such a folder has done its work. process/takeover.py goes on from it.
"""
