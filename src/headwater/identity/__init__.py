"""Who an anonymous visitor was: facts, and the one function that follows from them (protocol.md §10).

An event that names a person gives a *fact*. Facts are a set: in which order they come, from which node, in which batch,
changes nothing. Who owned an anonymous id at a time is a pure function of the facts of that id (``owner``), which
processing applies to fresh rows, and ``settle`` in each destination to those that are there already. No event is kept
for it, here or anywhere.
"""
