"""serve, status, top, drain and stop, as a person or a process manager calls them."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.service.support import found_by

if TYPE_CHECKING:
    from pathlib import Path


def sfwriter(*arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sfwriter", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_service_is_served_looked_at_drained_and_ended(ray_address: str, tmp_path: Path) -> None:
    name = f"cli-{os.getpid()}"
    command = [
        sys.executable, "-m", "sfwriter", "serve", "--name", name, "--warehouse", str(tmp_path / "wh"),
        "--set", "memory_fraction=0.02", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert started["started"]
        assert started["configuration"]["memory_fraction"] == {"value": "0.02", "origin": "flag"}

        again = sfwriter(*command[3:])
        assert (again.returncode, json.loads(again.stdout)["started"]) == (0, False)

        status = sfwriter("status", "--name", name, "--json")
        found = json.loads(status.stdout)
        assert (status.returncode, found["status"], found["consistent"]) == (0, "ok", True)
        assert "coordinator" in sfwriter("status", "--name", name).stdout
        assert "sfwriter_rows_total" in sfwriter("status", "--name", name, "--prometheus").stdout

        top = sfwriter("top", "--name", name, "--once", "--json")
        assert json.loads(top.stdout)["rows_total"] == 0
        assert "in flight" in sfwriter("top", "--name", name, "--once").stdout

        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for _ in range(2):
            stopped = sfwriter("stop", "--name", name, "--json")
            assert (stopped.returncode, json.loads(stopped.stdout)["stopped"]) == (0, False)
        gone = sfwriter("status", "--name", name)
        assert (gone.returncode, gone.stdout) == (1, "")
        assert "no service" in gone.stderr
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_served_service_that_somebody_else_stops_ends_its_command(ray_address: str, tmp_path: Path) -> None:
    name = f"elsewhere-{os.getpid()}"
    command = [sys.executable, "-m", "sfwriter", "serve", "--name", name, "--warehouse", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["started"]
        assert sfwriter("stop", "--name", name).returncode == 0
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "stopped by somebody else" in said


@pytest.mark.parametrize("command", ["status", "stop", "drain"])
def test_a_ray_that_does_not_answer_is_no_service_that_does_not_run(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    answer = sfwriter(command)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "nothing answers at RAY_ADDRESS" in answer.stderr


def test_another_server_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.server_port}")
        answer = sfwriter("status")
        server.shutdown()
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "is no Ray; give the address that `ray start --head` printed" in answer.stderr


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_drained_service_takes_nothing_more(ray_address: str, tmp_path: Path) -> None:
    name = f"detached-{os.getpid()}"
    begun = sfwriter("serve", "--name", name, "--warehouse", str(tmp_path), "--set", "memory_fraction=0.02", "--detach")
    assert begun.returncode == 0, begun.stderr
    assert f"service {name} runs" in begun.stdout
    assert sfwriter("drain", "--name", name, "--timeout", "30").returncode == 0
    assert sfwriter("status", "--name", name).returncode == 1
    stopped = sfwriter("stop", "--name", name)
    assert (stopped.returncode, "has ended" in stopped.stdout) == (0, True)


def test_a_service_with_its_own_ray_is_stopped_twice_and_whoever_comes_later_is_told(tmp_path: Path) -> None:
    found = found_by("tests.service.own_ray", tmp_path / "warehouse", tmp_path)
    assert found["drained"]
    assert found["stopped"] == [True, False, False]
    assert found["rows"] == [1] * 20
    assert found["refused"][0] == "raised"
    assert "draining" in found["refused"][1]
    gave = {name for name, (how, _) in found["after"].items() if how == "gave"}
    assert gave == {"health", "flush", "close"}
    assert "'status': 'down'" in found["after"]["health"][1]
    told = {name: what for name, (how, what) in found["after"].items() if how != "gave"}
    assert all(text.startswith("WriterError: ") for text in told.values())
    # Others' Ray may run on this machine, and refuse it.
    assert all("Service.start" in text for name, text in told.items() if name not in {"connect", "attach"})
    assert "nothing of the call is written" in found["after"]["write"][1]
    assert len(found["beside"]) == 4, "a call that was on its way is answered"
    assert found["alone"], "nobody has started another Ray"
    assert (found["rows_in_all"], found["consistent"]) == (21, True)
