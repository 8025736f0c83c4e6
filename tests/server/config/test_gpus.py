"""Which GPUs there are: the three forms, and what is refused."""

import pytest

from gpuarbiter_server.config import AutoGpus, ConfiguredGpus, SimulatedGpus, parse_gpus
from gpuarbiter_server.config.gpus import MAX_GPUS, format_gpus
from gpuarbiter_server.config.problems import Rejection
from gpuarbiter_server.core.model import GpuSpec

GIB = 1024**3


def test_auto_and_simulated():
    assert parse_gpus("auto") == AutoGpus()
    assert parse_gpus("sim:2x24GiB") == SimulatedGpus(2, 24 * GIB)


def test_a_list_makes_specs_in_its_order():
    said = [
        {"key": "gpu:0", "memory": "24GiB", "uuid": "GPU-1", "name": "NVIDIA L4"},
        {"key": "b", "memory": 1000, "uuid": None},
    ]
    assert parse_gpus(said) == ConfiguredGpus(
        (
            GpuSpec("gpu:0", 0, 24 * GIB, "GPU-1", "NVIDIA L4", monitored=False, source="configured"),
            GpuSpec("b", 1, 1000, monitored=False, source="configured"),
        )
    )


@pytest.mark.parametrize(
    "said",
    [
        "auto",
        "sim:2x24GiB",
        [{"key": "gpu:0", "memory": "24GiB", "uuid": "GPU-1", "name": "L4"}, {"key": "b", "memory": "1000B"}],
    ],
)
def test_the_file_form_is_the_one_that_was_read(said: object):
    assert format_gpus(parse_gpus(said)) == said


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("automatic", "auto, simulated GPUs such as"),
        (3, "auto, simulated GPUs such as"),
        ({}, "auto, simulated GPUs such as"),
        ("sim:x24GiB", "auto, simulated GPUs such as"),
        ("sim:2x24GB", "write 24GiB"),
        ("sim:0x24GiB", "1 to 128 simulated GPUs"),
        ("sim:129x24GiB", "1 to 128 simulated GPUs"),
        ("sim:1x0B", "1 to 128 simulated GPUs with memory"),
        ([], "1 to 128 GPUs"),
        ([{}] * (MAX_GPUS + 1), "1 to 128 GPUs"),
    ],
)
def test_other_forms_are_refused(said: object, allowed: str):
    with pytest.raises(ValueError, match=allowed):
        parse_gpus(said)


@pytest.mark.parametrize(
    ("entry", "path", "allowed"),
    [
        ("gpu:0", ("0",), "a mapping with key and memory"),
        ({"memory": 1}, ("0", "key"), "a text such as gpu:0"),
        ({"key": "0", "memory": 1}, ("0", "key"), "a letter"),
        ({"key": 0, "memory": 1}, ("0", "key"), "a letter"),
        ({"key": "a\n", "memory": 1}, ("0", "key"), "a letter"),
        ({"key": "a"}, ("0", "memory"), "a size such as"),
        ({"key": "a", "memory": 0}, ("0", "memory"), "more than 0 bytes"),
        ({"key": "a", "memory": "1GB"}, ("0", "memory"), "write 1GiB"),
        ({"key": "a", "memory": 1, "uuid": 5}, ("0", "uuid"), "nvidia-smi"),
        ({"key": "a", "memory": 1, "name": "x" * 97}, ("0", "name"), "96 characters"),
        ({"key": "a", "memory": 1, "memry": 2}, ("0", "memry"), "did you mean memory?"),
    ],
)
def test_a_fault_in_an_entry_is_named(entry: object, path: tuple[str, ...], allowed: str):
    with pytest.raises(Rejection) as caught:
        parse_gpus([entry])
    (fault,) = caught.value.faults
    assert fault.path == path
    assert allowed in fault.allowed


def test_no_two_gpus_share_a_key_or_a_uuid():
    with pytest.raises(Rejection) as caught:
        parse_gpus(
            [
                {"key": "a", "memory": 1, "uuid": "U"},
                {"key": "a", "memory": 1},
                {"key": "b", "memory": 1, "uuid": "U"},
                {"key": "c", "memory": 1, "uuid": "a"},
            ]
        )
    assert [fault.path for fault in caught.value.faults] == [("1", "key"), ("2", "uuid"), ("3", "uuid")]
