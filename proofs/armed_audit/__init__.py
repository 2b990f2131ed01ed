"""Runs everything, and owns the command line."""
