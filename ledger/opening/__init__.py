"""Taking a directory into possession: the lock, and what an earlier process left."""
