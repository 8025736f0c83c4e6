"""The decisions: pure, deterministic, no I/O, no clock, no threads, no third party.

`arbiter.Arbiter.handle(event, now)` returns the effects that the runtime carries out; `now` is a
monotonic time in seconds that the caller passes in.
"""
