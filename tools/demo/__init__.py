"""`make run`: an arbiter with a small workload on it, so that there is something to see."""
