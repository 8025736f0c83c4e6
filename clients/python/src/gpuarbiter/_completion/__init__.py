"""Completion for shells, made of the parser: what it knows, they know."""
