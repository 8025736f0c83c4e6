"""The exit codes of gpu-arbiter, beside those of the commands that it runs.

Law: those of `run` are those of timeout(1) and env(1) where these have one; a script can tell apart what it would
do something else about.
"""

FAILURE = 1
USAGE = 2
# Of `run`:
NOT_READY = 122
LEASE_LOST = 123
NO_GPU = 124
RUN_FAILURE = 125
CANNOT_EXECUTE = 126
NOT_FOUND = 127
# 128 + the number of a signal.
SIGNALLED = 128
INTERRUPTED = SIGNALLED + 2
