"""Real servers for tests: one inside the test's own loop, and one as a process of its own."""
