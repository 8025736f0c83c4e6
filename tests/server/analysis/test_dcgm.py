"""Series of the DCGM exporter become GPUs: units, pods that come and go, and what is missing."""

from typing import Any

import pytest

from gpuarbiter_server.analysis import dcgm
from gpuarbiter_server.analysis.dcgm import Series
from gpuarbiter_server.analysis.model import GpuWindow, Holder, Part, Sample, Weights
from gpuarbiter_server.analysis.scoring import score

GIB = 1024**3
LABELS = {"gpu": "0", "UUID": "GPU-a", "Hostname": "n1", "modelName": "NVIDIA H100", "pod": "p", "namespace": "ns"}


def series(values: dict[float, float], **labels: str) -> Series:
    return Series(LABELS | labels, values)


def windows(**found: Any) -> list[GpuWindow]:
    return dcgm.windows(found, steps=4, step=30.0)


def test_units_are_ours():
    (gpu,) = windows(
        GPU_UTIL=[series({0: 50, 30: 100})],
        MEM_COPY_UTIL=[series({0: 10, 30: 20})],
        FB_USED=[series({0: 1024, 30: 2048})],
        FB_FREE=[series({0: 80896, 30: 79872})],
        POWER_USAGE=[series({0: 200.5, 30: 300})],
        POWER_MGMT_LIMIT=[series({0: 700, 30: 600})],
        SM_CLOCK=[series({0: 1980, 30: 1000})],
    )
    assert gpu == GpuWindow(
        "GPU-a",
        "n1",
        "NVIDIA H100",
        (Sample(0.5, 0.1, 1 * GIB, 200.5, 1.98e9), Sample(1.0, 0.2, 2 * GIB, 300, 1e9)),
        4,
        30.0,
        80 * GIB,
        600,
        (Holder("ns", "p", "", 60.0),),
    )


def test_metrics_that_are_missing_are_not_counted_as_zero():
    (gpu,) = windows(GPU_UTIL=[series({0: 50})], FB_USED=[series({0: 1024})], POWER_USAGE=[series({30: 10})])
    assert gpu.samples == (Sample(0.5, None, GIB), Sample(None, None, None, 10.0))
    scored = score(gpu, Weights())
    assert (scored.value, scored.missing) == (50, (Part.MEMORY_BANDWIDTH, Part.MEMORY, Part.POWER))


def test_gpus_are_told_apart_by_host_and_uuid_and_instance():
    found = windows(
        GPU_UTIL=[
            series({0: 1}),
            series({0: 2}, GPU_I_ID="7"),
            series({0: 3}, Hostname="n2"),
            series({0: 4}, Hostname="n2", UUID=""),
        ],
        # Nobody knows what to make of the free memory of a GPU that shows nothing else.
        FB_FREE=[series({0: 1}, UUID="GPU-b")],
        FB_USED=[series({}, UUID="GPU-c")],
    )
    assert [(gpu.hostname, gpu.gpu_id, gpu.samples[0].utilization) for gpu in found] == [
        ("n1", "GPU-a", 0.01),
        ("n1", "GPU-a/7", 0.02),
        ("n2", "GPU-a", 0.03),
        ("n2", "n2/0", 0.04),
    ]


def test_the_holder_is_who_had_it_last_and_for_how_long():
    (gpu,) = windows(
        GPU_UTIL=[series({0: 10, 30: 20}, pod="old"), series({60: 30, 90: 40}, pod="new")],
        FB_USED=[series({90: 1}, pod="new")],
    )
    assert [sample.utilization for sample in gpu.samples] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert gpu.holders == (Holder("ns", "new", "", 60.0),)


def test_pods_that_share_it_are_all_there_and_the_longest_comes_first():
    (gpu,) = windows(GPU_UTIL=[series({60: 5}, pod="second"), series({0: 5, 60: 5}, pod="first")])
    assert [(holder.pod, holder.held) for holder in gpu.holders] == [("first", 90), ("second", 30)]


def test_labels_that_prometheus_moved_aside_are_those_that_count():
    (gpu,) = windows(GPU_UTIL=[series({0: 5}, pod="exporter", exported_pod="mine", exported_namespace="team")])
    assert gpu.holders == (Holder("team", "mine", "", 30.0),)


def test_without_a_pod_nobody_is_known_to_hold_it():
    (gpu,) = windows(GPU_UTIL=[series({0: 5}, pod="", namespace="")])
    assert gpu.holders == ()
