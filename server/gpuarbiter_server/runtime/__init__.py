"""The one task that owns the core: events in, time, effects out."""
