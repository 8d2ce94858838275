"""Every process of a demo: started marked, found again by the mark, ended whatever happened.

A mark in the environment is inherited by all that a process starts, so that also what has lost its parent
is found. The demo's Ray is its own: another one on this machine is neither joined nor seen, nor does it
see this one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

MARK = "DEMO_OF_SFWRITER"
OBJECT_STORE_BYTES = 256 << 20
GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""

RAY_STARTS = 3
"""Attempts. Ray gives its processes 30 s, which a machine that is busy with other things does not always keep."""

LONGEST_TEMPORARY = 25
"""Ray adds about 65 characters to its folder for its sockets, whose paths end at 107."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RayError(Exception):
    """Ray could not be started."""


class Household:
    """The processes of one demo."""

    def __init__(self) -> None:
        """Mark this process's future children."""
        self._mark = secrets.token_hex(8)
        self.project = Path(__file__).resolve().parents[2]
        self._place = "/tmp" if len(tempfile.gettempdir()) > LONGEST_TEMPORARY else None
        self._folder: Path | None = None
        self.interrupted: int | None = None
        self.ray_address = ""
        os.environ[MARK] = self._mark
        # Ray's own long message about a worker that was killed; it reads this when it is imported.
        os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "A worker died or was killed"
        self._listen()

    def check(self) -> None:
        """Raise KeyboardInterrupt where a signal came whose exception was lost inside of a library."""
        if self.interrupted is not None:
            raise KeyboardInterrupt

    def start_ray(self) -> None:
        """Start a Ray of this process alone, in a folder and with a token of its own; it ends with the process."""
        self._folder = Path(tempfile.mkdtemp(prefix="sfwriter-", dir=self._place))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(self._folder / "token")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        for other in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ.pop(other, None)
        import ray

        from actors.cluster import use_token

        use_token(make=True)
        fault: Exception | None = None
        for _ in range(RAY_STARTS):
            fault = self._try_ray()
            self._listen()  # Ray has put its own handler of SIGTERM
            self.check()
            if fault is None:
                break
        if fault is not None:
            raise RayError(f"Ray did not start in {RAY_STARTS} attempts: {fault}") from fault
        self.ray_address = ray.get_runtime_context().gcs_address
        self.check()

    def _try_ray(self) -> Exception | None:
        import ray

        try:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=str(self._folder),
            )
        except Exception as error:  # noqa: BLE001  Ray raises plain ones when its start takes too long
            self.stop_ray()
            self._end_members()
            return error
        return None

    def environment(self) -> dict[str, str]:
        """For a process that joins this demo's Ray."""
        return {**os.environ, "RAY_ADDRESS": self.ray_address}

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a Python of this environment: `-m module …`. A Ctrl-C of the terminal does not reach it."""
        self.check()
        return subprocess.Popen([sys.executable, *arguments], text=True, start_new_session=True, **options)

    def members(self) -> list[psutil.Process]:
        """The processes of this demo that run, without this one."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    @staticmethod
    def ignore_signals() -> None:
        """Let nothing interrupt what follows, which takes some seconds at most."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def end(self) -> list[psutil.Process]:
        """End all of them and remove Ray's folder. Returns those that would not go."""
        self.stop_ray()
        self._end_members()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return self.members()

    def _end_members(self) -> None:
        members = self.members()
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(members, timeout=GRACE_S)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=GRACE_S)

    def stop_ray(self) -> None:
        """End this demo's Ray, where it runs."""
        ray = sys.modules.get("ray")
        if ray is None or self._folder is None:
            return
        with contextlib.suppress(Exception):  # half started or half dead: what is left is ended by its mark
            ray.shutdown()

    def _listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        """The first one interrupts; those that follow must not interrupt the cleaning up."""
        if self.interrupted is None:
            self.interrupted = number
            raise KeyboardInterrupt
