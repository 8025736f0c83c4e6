"""Whether spans are exported, by the standard OTEL_* variables: only where an endpoint is set.

A module of its own, so that nobody imports OpenTelemetry for a no.
Variables: opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables.
"""

import logging
import os
from collections.abc import Mapping

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be exported; logs why not where it looks as if they were meant to be."""
    if not any(environment.get(name) for name in _ENDPOINTS):
        return False
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    if exporter != "otlp":
        if exporter != "none":
            log.warning("no traces: OTEL_TRACES_EXPORTER is %r, only otlp and none are known here", exporter)
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    if protocol != "grpc":
        log.warning("no traces: the OTLP protocol is %r, only grpc is spoken here", protocol)
        return False
    return True
