"""Who has not the token of a Ray that the product started stays outside, and is told what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray

from actors import Service, connect

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

TOKEN_FILE = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")

OUTSIDE = """
import json, sys
from actors import Service, connect
from sfwriter import WriterError
said = {}
for name, call in {"connect": connect, "attach": Service.attach}.items():
    try:
        call(sys.argv[1])
    except WriterError as error:
        said[name] = [error.code, str(error)]
import ray
print(json.dumps([said, ray.is_initialized()]))
"""


def outside(home: Path, **environ: str) -> dict[str, str]:
    """The environment of another user, who has found the address."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    return {**own, "HOME": str(home), **environ}


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, dict[str, str]]:
    """Environments of those who have no token, another one, or ask for one that is not there."""
    other = tmp_path / "other" / ".ray"
    other.mkdir(parents=True)
    (other / "auth_token").write_text("0" * 64)
    return {
        "none": outside(tmp_path),
        "another": outside(tmp_path / "other"),
        "missing": outside(tmp_path, RAY_AUTH_MODE="token"),
    }


def begun(arguments: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.usefixtures("ray_address")
def test_a_process_without_the_token_is_refused_and_told_what_to_do(homes: dict[str, dict[str, str]]) -> None:
    told = {"none": "has none", "another": "has another one", "missing": "auth_token is missing"}
    for token, process in {token: begun(["-c", OUTSIDE, "any"], homes[token]) for token in told}.items():
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors[-2000:]
        said, connected = json.loads(output.splitlines()[-1])
        assert not connected
        for code, text in (said["connect"], said["attach"]):
            assert code == "unauthenticated"
            assert told[token] in text
            assert "copy" in text


@pytest.mark.usefixtures("ray_address")
def test_the_commands_say_so_too(homes: dict[str, dict[str, str]]) -> None:
    commands = ("status", "stop", "drain")
    for process in [begun(["-m", "sfwriter", command, "--name", "any"], homes["none"]) for command in commands]:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 1
        assert "asks for a token" in errors.splitlines()[-1]


def test_the_token_is_its_owner_s_alone_and_in_no_log(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name) as client:
        client.write_log_rows([{"phase": "gold", "step_name": "s"}])
    assert TOKEN_FILE.stat().st_mode & 0o777 == 0o600
    token = TOKEN_FILE.read_bytes().strip()
    assert len(token) >= 32
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    logs = [file for file in session.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(file.suffix == ".log" for file in logs)
    assert [file for file in logs if token in file.read_bytes()] == []
    assert token.decode() not in json.dumps([service.configuration(), service.health(), service.metrics()], default=str)
