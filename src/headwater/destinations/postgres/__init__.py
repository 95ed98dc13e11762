"""Delivery into a PostgreSQL schema; the driver is imported when a destination of this kind is made."""
