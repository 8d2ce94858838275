"""The whole demo as a process, small, and interrupted."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACE = "TRACE_OF_DEMO_TEST"
SMALL = ("--packages", "9", "--files", "20", "--pipelines", "2", "--rows", "20000")


class Started:
    """A demo, and every process that has its environment."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.trace = secrets.token_hex(8)
        self.folder = folder
        self.output = output
        self.file = output.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo", *SMALL, "--folder", str(folder)],
            env={**os.environ, TRACE: self.trace},
            stdout=self.file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, seconds: float = 200) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def left(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if is_traced(process, self.trace)]


def is_traced(process: psutil.Process, trace: str) -> bool:
    try:
        return process.environ().get(TRACE) == trace and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path / "made" / "place", tmp_path / "output.txt")
    yield started
    for process in started.left():
        process.kill()
    started.process.wait()
    started.file.close()


@pytest.mark.kill
@pytest.mark.timeout(300)
def test_a_small_demo_proves_its_claim_and_leaves_no_process(demo: Started) -> None:
    assert demo.process.wait(240) == 0, demo.said()
    assert "SIGKILL to writer" in demo.said()
    assert "each once" in demo.said()
    assert demo.left() == []
    assert (demo.folder / "logs" / "pipeline_runs" / "_delta_log").is_dir()


@pytest.mark.kill
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["processes", "SIGKILL", "generated"])
def test_ctrl_c_ends_everything(demo: Started, moment: str) -> None:
    demo.wait_for(moment)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 130, demo.said()
    assert demo.left() == []
    assert not demo.folder.parent.exists()
    assert "Traceback" not in demo.said()


@pytest.mark.timeout(60)
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    run = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--folder", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "not an earlier demo's" in " ".join(run.stdout.split())
    assert (tmp_path / "thesis.txt").read_text() == "mine"
