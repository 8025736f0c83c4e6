"""The guard: the process that a command under `gpu-arbiter run` descends from."""
