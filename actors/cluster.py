"""Ray itself: found where it runs, started where it does not, ended by whoever started it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import psutil
import ray
from ray._private import services
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]  # no stubs
from ray.exceptions import AuthenticationError, RayError

from actors.calls import leave_ray
from actors.priority import own_ray
from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADDRESS = re.compile(r"--address='([^']+)'")
"""In what `ray start` says of how other nodes join."""
_SAID_BYTES = 1 << 16
_SETTINGS = b"\x00\x00\x00\x04"
"""A frame's length, and the type that is the first to come from either side (RFC 9113, 3.4)."""
_HTTP2_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS + bytes(5)

ANSWER_TIMEOUT_S = 10.0
"""For the first words of a server that took the connection."""

START_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 2.0
OBJECT_STORE_BYTES = 1 << 30
"""Of a Ray that is started here: what is in flight is bounded by the budget, not by this; Ray spills above it."""


def join_ray(*, pass_by_strangers: bool = False) -> bool:
    """Connect this process to the Ray that `RAY_ADDRESS` names or that runs on this machine; False: there is none.

    Args:
        pass_by_strangers: one that was found here and refuses this process counts as none.

    Raises:
        WriterError: nothing answers at `RAY_ADDRESS`, or what answers does not let this process in.
    """
    if ray.is_initialized():
        return True
    use_token(make=pass_by_strangers and os.environ.get("RAY_AUTH_MODE") == "token")
    named = os.environ.get("RAY_ADDRESS")
    if named and named not in {"auto", "local"}:
        if "://" not in named and not _listens(named):
            raise WriterError(
                f"nothing answers at RAY_ADDRESS={named!r}",
                suggestions=["start that Ray, or unset RAY_ADDRESS"],
                code="unreachable",
            )
        if "://" not in named and not _speaks_http2(named):
            raise WriterError(
                f"what answers at RAY_ADDRESS={named!r} is no Ray",
                suggestions=["give the address that `ray start --head` printed, or unset RAY_ADDRESS"],
                code="unreachable",
            )
        if "://" not in named and _refuses(named):
            raise _refused(named)
        address: str | None = named
    else:
        # What a Ray that was killed has left behind still names it: Ray itself would wait for that for minutes.
        candidates = [services.find_bootstrap_address(None), *sorted(cast("Any", services).find_gcs_addresses())]
        running = list(dict.fromkeys(found for found in candidates if found and _listens(found)))
        address = next((found for found in running if not _refuses(found)), None)
        if running and address is None and not pass_by_strangers:
            raise _refused(running[0])
    if address is None:
        return False
    _join(address)
    return True


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        # It ends just now, is of another version, or wants a token.
        raise WriterError(
            f"the Ray at {address} cannot be joined: {(str(error).splitlines() or [type(error).__name__])[0]}",
            suggestions=["look whether that Ray runs and is of this version, or set RAY_ADDRESS to another one"],
            code="unreachable",
        ) from error


def _refuses(address: str) -> bool:
    """Whether the Ray there does not accept this process's token; Ray's own way in would try for 20 s."""
    try:
        GcsClient(address=address)
    except AuthenticationError:
        return True
    except Exception:  # noqa: BLE001  whatever else is wrong is said by the way in
        return False
    return False


def _refused(address: str) -> WriterError:
    has = "has another one" if os.environ.get("RAY_AUTH_MODE") == "token" else "has none"
    return WriterError(
        f"the Ray at {address} asks for a token, and this process {has}; it is not connected",
        suggestions=[
            "copy ~/.ray/auth_token of the user who started it here, mode 0600, or name it by RAY_AUTH_TOKEN_PATH",
            "set RAY_ADDRESS where another Ray is meant",
        ],
        code="unauthenticated",
    )


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


def _speaks_http2(address: str) -> bool:
    """Whether the server there opens as gRPC's do; Ray itself would try each other server for minutes."""
    if os.environ.get("RAY_USE_TLS") == "1":
        return True  # nothing is said in the open
    host, _, port = address.rpartition(":")
    said = b""
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT_S) as connection:
            connection.sendall(_HTTP2_OPENING)
            while len(said) < len(_SETTINGS) and (more := connection.recv(64)):
                said += more
    except OSError:
        return False
    return said[3 : len(_SETTINGS)] == _SETTINGS[3:]


def start_ray() -> int:
    """Start a Ray of its own session, which outlives this process, and connect to it. Returns its pid."""
    use_token(make=True)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--port=0", "--include-dashboard=false",
        "--disable-usage-stats", f"--object-store-memory={OBJECT_STORE_BYTES}",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as output:
        # In a session of its own it does not get the terminal's Ctrl-C.
        process = subprocess.Popen(  # noqa: S603  the command is ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=own_ray(),
        )
        clock = SystemClock()
        deadline = clock.monotonic() + START_TIMEOUT_S
        try:
            while not _joined(_told_address(output)):
                if process.poll() is not None or clock.monotonic() > deadline:
                    said = _said(output).strip().splitlines()[-12:]
                    raise WriterError(  # noqa: TRY301  whatever ends the wait ends what was started
                        "Ray could not be started: " + " | ".join(line.strip() for line in said if line.strip()),
                        suggestions=["look whether `ray start --head` works here"],
                    )
                clock.sleep(0.2)
        except BaseException:
            end_ray(process.pid)
            raise
    # Another process may end it, and would wait for a zombie.
    threading.Thread(target=process.wait, name="sfwriter-ray", daemon=True).start()
    return process.pid


def end_ray(pid: int) -> None:
    """End a Ray that `start_ray` started, with everything in it. One that is gone is no error."""
    leave_ray()
    try:
        head = psutil.Process(pid)
        family = [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        head.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    if head.pid in _own_children():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def use_token(*, make: bool = False) -> None:
    """Turn Ray's token authentication on in this process where there is a token, making one if asked.

    The file is Ray's own (`~/.ray/auth_token`), which Ray leaves readable for all; it is made its
    owner's only. A mode or token that the environment names is left as it is.

    Raises:
        WriterError: the environment asks for a token, there is none, and none is to be made.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    if os.environ.get("RAY_AUTH_TOKEN") or (mode and mode != "token"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.exists():
        if not make:
            if mode:  # Ray itself would end this process
                raise WriterError(
                    f"RAY_AUTH_MODE is 'token', and there is no token: {path} is missing",
                    suggestions=["copy it from the user who started that Ray, with mode 0600", "unset RAY_AUTH_MODE"],
                    code="unauthenticated",
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), _private(path) as file:
            os.write(file, secrets.token_hex(32).encode())
    if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
        path.chmod(0o600)
    os.environ["RAY_AUTH_MODE"] = "token"
    # Ray reads its settings when it is imported; it does the same in its own `ray.init`.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _said(output: IO[bytes]) -> str:
    # Without moving the place that this process shares with the one that writes.
    return os.pread(output.fileno(), _SAID_BYTES, 0).decode(errors="replace")


def _told_address(output: IO[bytes]) -> str | None:
    """Where the Ray that is being started listens; None until it says so."""
    found = _ADDRESS.search(_said(output))
    return found[1] if found else None


def _joined(address: str | None) -> bool:
    """Connect to this Ray and no other: somebody else may start one at the same moment."""
    if address is None:
        return False
    try:
        _join(address)
    except Exception:  # noqa: BLE001  a Ray that is still starting answers in many ways
        return False
    return True


@contextlib.contextmanager
def _private(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _own_children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}
