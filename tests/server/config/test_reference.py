"""The generated page: complete, and its examples are true."""

from pathlib import Path

import pytest
from tools.reference import EXAMPLE, GPU_LIST, OLD, OLDER_YAML, configuration_reference

from gpuarbiter_server.config import Config, ConfiguredGpus, load, merge_patch, migrate
from gpuarbiter_server.config.keys import all_keys


@pytest.fixture(scope="module")
def page() -> str:
    (text,) = (text for path, text in configuration_reference().items() if path.name == "configuration.md")
    return text


def test_every_key_has_its_row(page: str):
    for key in all_keys():
        assert f"| `{'.'.join(key.path)}` | {key.kind} | `" in page
        assert key.what


def test_its_examples_load(tmp_path: Path):
    migrated = {"migrated": migrate(OLD), "analyzer": migrate(OLDER_YAML)}
    for name, text in {"example": EXAMPLE, "gpus": GPU_LIST, **migrated}.items():
        (tmp_path / name).write_text(text)
    assert load(tmp_path / "example", {}).settings().policies["ASR"].priority == 90
    assert isinstance(load(tmp_path / "gpus", {}).gpus, ConfiguredGpus)
    assert load(tmp_path / "migrated", {}).defaults.max_hold == 8.0
    assert load(tmp_path / "analyzer", {}).analysis.time_window == 600.0


def test_beside_its_policies_the_example_says_the_defaults(tmp_path: Path):
    (tmp_path / "example").write_text(EXAMPLE)
    assert merge_patch(load(tmp_path / "example", {}), "policies: null") == Config()
