"""The checklist of what an arbiter shows to monitors, looked at on a running one."""
