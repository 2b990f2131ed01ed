"""A supervisor of worker processes with a dead man switch. Standard library only."""
