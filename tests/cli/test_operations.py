"""serve, status, top, drain and stop: their options, and where a configuration comes from."""

from __future__ import annotations

import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

import pytest

from sfwriter import WriterConfig, WriterConfigurationError
from sfwriter.cli.operations import configured

if TYPE_CHECKING:
    from pathlib import Path


def sfwriter(*arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sfwriter", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("service.toml", 'compression = "zstd"\nbatch_size = 7\npartition_columns = ["phase"]\n'),
        ("service.yaml", "compression: zstd\nbatch_size: 7\npartition_columns: [phase]\n"),
    ],
)
def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    environ = {"SFWRITER_BATCH_SIZE": "8", "SFWRITER_MAX_RETRIES": "5"}
    config, origins = configured(str(file), environ, ["max_retries=6", "fail_fast=true"], "/wh")
    assert (config.compression, config.batch_size, config.max_retries, config.fail_fast) == ("zstd", 8, 6, True)
    assert list(config.partition_columns) == ["phase"]
    assert origins == {
        "compression": str(file), "partition_columns": str(file), "batch_size": "SFWRITER_BATCH_SIZE",
        "max_retries": "flag", "fail_fast": "flag", "warehouse": "flag",
    }  # fmt: skip
    assert configured(None, {}, [], None) == (WriterConfig(), {})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "compresion = 'zstd'", "did you mean compression"),
        ("a.toml", "batch_size = 'many'", "batch_size"),
        ("a.toml", "batch_size = ", "is not TOML"),
        ("a.yaml", "a: [", "is not YAML"),
        ("a.yaml", "- 1", "expected options"),
        ("a.yaml", "1: 2", "expected the name of an option"),
        ("a.ini", "", "expected .toml"),
        ("missing.toml", None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(WriterConfigurationError, match=said) as caught:
        WriterConfig.from_file(file, {})
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["storage_options: {key: TOPSECRET\nx: [", "a: *TOPSECRET", "TOPSECRET: 1\nTOPSECRET: 2"]
)
def test_a_broken_file_never_shows_what_is_in_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(WriterConfigurationError, match="line") as caught:
        WriterConfig.from_file(file, {})
    assert "TOPSECRET" not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("batch_size: 1\nbatch_size: 2\n")
    with pytest.raises(WriterConfigurationError, match="twice"):
        WriterConfig.from_file(file, {})


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    for name in ("a.toml", "a.yml"):
        (tmp_path / name).write_text("")
        assert WriterConfig.from_file(tmp_path / name, {}) == WriterConfig()


@pytest.mark.parametrize("setting", ["batch_size", "nonsense=1", "batch_size=many", "=1"])
def test_a_wrong_setting_is_wrong_usage(setting: str) -> None:
    done = sfwriter("serve", "--set", setting)
    assert (done.returncode, done.stdout) == (2, "")
    assert setting.partition("=")[0].upper() in done.stderr.upper()


@pytest.mark.parametrize("command", ["serve", "status", "top", "drain", "stop"])
def test_each_command_has_help_with_an_example(command: str) -> None:
    done = sfwriter(command, "--help")
    assert done.returncode == 0
    assert f"sfwriter {command}" in done.stdout.partition("Example")[2]
