"""Processing: cuts of the raw log become commits of the ready log, in columns (protocol.md §4).

``worker`` turns the crank, ``run`` is the pure step, ``gather`` and ``read`` get from blocks to columns, ``dedupe``
drops what was seen, ``enrich`` adds what is known about distinct values, ``shape`` names and types the row set,
``state`` is the fold that makes restarts quick.
"""
