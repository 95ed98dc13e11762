"""Clock, randomness, disk, tasks and errors: everything the rest may not take from the machine directly."""
