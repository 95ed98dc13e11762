"""From the ready log into each destination, exactly once: the destination remembers the position that it holds."""
