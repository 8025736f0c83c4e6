"""What importing costs, and what is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpuarbiter


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_is_cheap():
    loaded = loaded_by("import gpuarbiter; gpuarbiter.__version__")
    assert not {"grpc", "google.protobuf", "asyncio", "gpuarbiter._errors"} & loaded


def test_the_stubs_alone_load_nothing_of_the_client():
    loaded = loaded_by("import gpuarbiter.v1.lease_pb2")
    assert {name for name in loaded if name.startswith("gpuarbiter")} == {
        "gpuarbiter",
        "gpuarbiter._version",
        "gpuarbiter.v1",
        "gpuarbiter.v1.lease_pb2",
    }
    assert "grpc" not in loaded


def test_the_synchronous_client_needs_no_asyncio_of_ours():
    assert not {name for name in loaded_by("from gpuarbiter import Arbiter") if name.startswith("gpuarbiter._aio")}


def test_help_loads_nothing_that_takes_long():
    loaded = loaded_by("from gpuarbiter.cli import parser; parser().format_help()")
    assert not {"grpc", "prometheus_client", "urllib.request"} & loaded


def test_every_export_is_there_and_declared_for_type_checkers():
    tree = ast.parse(Path(str(gpuarbiter.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        (alias.asname, statement.module)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert declared == {(name, f"gpuarbiter.{home}") for name, home in gpuarbiter._HOMES.items()}
    for name in gpuarbiter.__all__:
        assert getattr(gpuarbiter, name) is not None
        assert name in dir(gpuarbiter)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Referee'"):
        gpuarbiter.Referee  # noqa: B018 -- the access is the test


def test_the_version_is_one():
    assert gpuarbiter.__version__.count(".") == 2
