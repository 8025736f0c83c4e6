"""What the end-to-end tests drive the real arbiter with: the daemon, and its clients as processes and as streams."""
