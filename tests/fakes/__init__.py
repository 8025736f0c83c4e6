"""Stand-ins for the world around the arbiter, written by hand."""
