"""Measurements against floors taken in the same run; never tests."""
