"""The cluster: who is there, who leads, and who owns which partition (protocol.md §9, docs/decisions/0007-cluster.md).

Nothing here is needed for safety: a wrong answer costs work, never a row (INV-DST-1). ``table`` and ``view`` are what
is decided, ``assign`` how partitions are shared out, ``membership`` one node's part in deciding it.
"""
