"""Slow twins of the fast code, written to be believed."""
