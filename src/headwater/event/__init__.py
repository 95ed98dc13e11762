"""What travels: positions, records, commits, slots, names."""
