"""Memory of this process and everything that it started, what they share counted once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_S = 0.25


def family_bytes() -> int:
    """Resident bytes of all these processes. Of a page that several map, each counts its part (`Pss`)."""
    return sum(bytes_by_kind().values())


def bytes_by_kind() -> Counter[str]:
    """The same for each kind of process: `own`, an actor's class as `ray::…`, `crew`, else the program's name."""
    own = psutil.Process()
    found: Counter[str] = Counter()
    for process in (own, *own.children(recursive=True)):
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            command = process.cmdline()
            kind = "own" if process == own else _kind(process.name(), " ".join(command))
        except (OSError, psutil.Error):
            continue  # it has ended
        found[kind] += next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
    return found


def _kind(name: str, command: str) -> str:
    if command.startswith("ray::"):
        return command.split(".", maxsplit=1)[0].rstrip()  # the method that runs stands behind it, or blanks
    return "crew" if "benchmarks.child" in command else name


class Peak:
    """The most that was seen."""

    def __init__(self) -> None:
        """Begin with what there is."""
        self.nbytes = family_bytes()


@contextmanager
def watched() -> Iterator[Peak]:
    """Look a few times a second until the end of the block."""
    peak = Peak()
    over = threading.Event()

    def look() -> None:
        while not over.wait(EVERY_S):
            peak.nbytes = max(peak.nbytes, family_bytes())

    thread = threading.Thread(target=look, name="footprint", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def spilled_bytes(session: Path) -> int:
    """Bytes that the Ray of a session has moved from its object store to disk, as its node says."""
    found = 0
    for log in (session / "logs").glob("raylet*.out"):
        for line in log.read_text(errors="replace").splitlines():
            if "Spilled" in line and "MiB" in line:
                words = line.split("Spilled ")[1].split()
                found = max(found, int(float(words[0]) * (1 << 20)))
    return found


def settled_bytes(quiet_s: float = 1.0, tries: int = 20) -> int:
    """The footprint when it no longer changes by more than a hundredth."""
    last = family_bytes()
    for _ in range(tries):
        time.sleep(quiet_s)
        now = family_bytes()
        if abs(now - last) <= last / 100:
            return now
        last = now
    return last
