"""What the arbiter shows of itself: metrics and logs. Observers only: nothing here decides anything."""
