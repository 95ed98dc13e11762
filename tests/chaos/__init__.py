"""Faults on a real node under load, drawn from a seed, with the oracle outside the product: `make chaos`."""
