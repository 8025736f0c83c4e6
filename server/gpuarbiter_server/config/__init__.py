"""The configuration: file, environment and flags -> frozen settings.

Law: nothing is configured by halves. What comes out of here was checked as a whole; what is wrong is
told all at once, each problem with its key, value, source and what is allowed.
"""

from gpuarbiter_server.config.gpus import AutoGpus, ConfiguredGpus, GpuSource, SimulatedGpus, parse_gpus
from gpuarbiter_server.config.listen import Address, default_socket_path
from gpuarbiter_server.config.load import json_schema, load, merge_patch, patch_schema, restart_needed
from gpuarbiter_server.config.migrate import Migrated, migrate, migrate_with_notes
from gpuarbiter_server.config.model import Config
from gpuarbiter_server.config.problems import ConfigError, Problem
from gpuarbiter_server.config.sections import IN_MEMORY

__all__ = [
    "IN_MEMORY",
    "Address",
    "AutoGpus",
    "Config",
    "ConfigError",
    "ConfiguredGpus",
    "GpuSource",
    "Migrated",
    "Problem",
    "SimulatedGpus",
    "default_socket_path",
    "json_schema",
    "load",
    "merge_patch",
    "migrate",
    "migrate_with_notes",
    "parse_gpus",
    "patch_schema",
    "restart_needed",
]
