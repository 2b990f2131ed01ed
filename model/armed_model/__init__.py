"""The formal model of the dead man switch: the specification, and everything derived from it alone."""
