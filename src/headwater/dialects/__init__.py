"""What trackers say: one room for each dialect, both halves in it.

The *envelope* half is for the door: is this an event, how many, whose, and which of them are refused. The *split* half
is for processing: the same body as canonical JSON objects, exactly as many as the door counted.
"""
