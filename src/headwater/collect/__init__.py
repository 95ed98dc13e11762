"""The door: takes requests, decides whether their records may enter, appends them to the log, answers.

Walk: worker.py (one process) → protocol.py (one connection: bytes to requests) → heads.py (what a request's head says,
remembered by its bytes) → plan.py (what is to be done with such a request) → door.py (does it) → the log → answers.py
(in order, when the log says so). What an event means is decided later, by others.
"""
