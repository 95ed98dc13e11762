"""Requests that nobody should send, drawn from a seed, with what each may be answered: `make fuzz`."""
