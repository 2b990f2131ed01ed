"""Implementations that the kit can be pointed at, by name."""
