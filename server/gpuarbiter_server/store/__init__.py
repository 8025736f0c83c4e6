"""What is kept: the history of events."""
