"""A whole machine, or several, in one thread under one seed: time, disk and wire that fail as real ones may.

Only tests use it. The walk: ``run.py`` gives a scenario its ``Simulation``; ``clock.py`` holds the time that all parts
share; ``loop.py`` an asyncio loop on that time, ``threads.py`` processes and blocking threads on it; ``files.py`` and
``names.py`` what a disk keeps and loses; ``disk.py`` the processes that use it; ``wire.py`` the network between hosts,
``transport.py`` the same for protocols.
"""
