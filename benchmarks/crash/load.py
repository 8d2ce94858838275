"""Processes that write through a service, are killed, and go on; and a count of what they left.

Every row says which batch of which producer it belongs to, so each can be looked for by an independent
reader. Run as a script, this file is one such client.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa

from benchmarks.live import look_at
from sfwriter.testing.rows import log_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors import Service

ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE, LARGE_EVERY = 7, 3_000, 8
"""Rows of most batches, which travel inside the call, and of every eighth, which goes through Ray's object store."""
IN_FLIGHT = 24
PATIENCE_S = 120.0
"""A coordinator that comes back on a machine that others fill needs a minute of it."""


def rows_of(number: int) -> int:
    """How many rows a producer's batch has."""
    return LARGE if number % LARGE_EVERY == LARGE_EVERY - 1 else SMALL


def batch(producer_id: str, number: int) -> pa.Table:
    """A producer's batch: always the same for the same number."""
    rows = rows_of(number)
    table = log_table(rows, number)
    place = table.schema.names.index("execution_id")
    return table.set_column(place, "execution_id", pa.array([f"{producer_id}/{number}/{row}" for row in range(rows)]))


# ---------------------------------------------------------------- the client's side


def write_until_told(service: str, producer_id: str, stop: Path) -> None:
    """Send batches behind what is committed, many in flight, and print each number that is acknowledged."""
    from actors import connect

    with connect(service, producer_id=producer_id) as client:
        committed = client.committed_sequence
        number = 0 if committed is None else committed + 1
        flying: deque[tuple[int, Any]] = deque()
        print(f"begins {number}", flush=True)
        while not stop.exists():
            flying.append((number, client.submit_log_rows(batch(producer_id, number), sequence=number)))
            number += 1
            while flying and (len(flying) >= IN_FLIGHT or flying[0][1].done()):
                _acknowledged(*flying.popleft())
            time.sleep(0.01)  # the killed ones need the processor, too
        while flying:
            _acknowledged(*flying.popleft())
    print("ends", flush=True)


def _acknowledged(number: int, future: Any) -> None:
    result = future.result(timeout=PATIENCE_S)
    if result["batch_id"].rpartition(":")[2] != str(number):
        raise AssertionError(f"batch {number} was acknowledged as {result['batch_id']}")
    print(f"ack {number}", flush=True)


# ---------------------------------------------------------------- the test's side


@dataclass
class ClientProcess:
    """A client in a process of its own, with a producer id that outlives it."""

    service: str
    producer_id: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> Path:
        """What it printed, over all its lives."""
        return self.folder / f"{self.producer_id}.out"

    def begin(self) -> None:
        """Start it, or its successor."""
        if self.process is not None:
            self.process.wait()
        stop = str(self.folder / "stop")
        command = [sys.executable, "-m", "benchmarks.crash.load", self.service, self.producer_id, stop]
        with self.said.open("ab") as out, (self.folder / f"{self.producer_id}.err").open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=errors
            )

    @property
    def pid(self) -> int:
        """Of its present life."""
        assert self.process is not None
        return self.process.pid

    def acknowledged(self) -> int:
        """The highest number that it saw acknowledged, -1 before the first."""
        lines = self.said.read_text().splitlines() if self.said.exists() else []
        # The last line of a killed process may be half written.
        whole = [line.split()[1] for line in lines if line.startswith("ack ") and len(line.split()) == 2]
        return max((int(number) for number in whole[:-1]), default=-1)

    def check_alive(self) -> None:
        """Raise with its last words where it ended by itself."""
        assert self.process is not None
        if self.process.poll() not in (None, 0):
            words = (self.folder / f"{self.producer_id}.err").read_text()[-3000:]
            raise AssertionError(f"client {self.producer_id} ended with {self.process.returncode}:\n{words}")


@dataclass
class Load:
    """Some clients that write through one service, and the table that they fill."""

    service: Service
    table: Path
    clients: list[ClientProcess] = field(default_factory=list)
    kills: int = 0

    def kill(self, pid: int | None) -> None:
        """SIGKILL a process and wait until it is gone."""
        assert pid is not None
        victim = psutil.Process(pid)
        victim.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.wait(10)
        self.kills += 1

    def coordinator_pid(self) -> int:
        """Waits until there is one."""
        return int(wait_for(lambda: self.service.health()["coordinator"]["pid"], "a coordinator"))

    def writer_pids(self) -> list[int]:
        """Of the writers that answer; waits until there is one."""
        pids: list[int] = wait_for(lambda: [w["pid"] for w in self.service.health()["writers"] if w["pid"]], "a writer")
        return pids

    def wait_for_progress(self, batches: int = 3) -> None:
        """Wait until every client has seen so many more batches acknowledged."""
        goals = {client.producer_id: client.acknowledged() + batches for client in self.clients}

        def gone_on() -> bool:
            for client in self.clients:
                client.check_alive()
            return all(client.acknowledged() >= goals[client.producer_id] for client in self.clients)

        wait_for(gone_on, f"{batches} more acknowledged batches of each client")

    def finish(self) -> None:
        """Let the clients settle what they have and end."""
        (self.clients[0].folder / "stop").touch()
        for client in self.clients:
            assert client.process is not None
            client.process.wait(PATIENCE_S)
            client.check_alive()
            assert client.said.read_text().endswith("ends\n")

    def check(self, acknowledged: dict[str, int] | None = None) -> int:
        """Every producer's rows are there without a gap, each once, up to its number; returns the rows.

        Args:
            acknowledged: producer to a number that must be there, if not what the clients saw acknowledged.
        """
        return check_exact(self.table, acknowledged or {c.producer_id: c.acknowledged() for c in self.clients})


def check_exact(table: Path, acknowledged: dict[str, int]) -> int:
    """As `Load.check`, for producers that wrote `batch(producer_id, number)`."""
    look = look_at(table)
    counted = {
        (producer_id, int(number)): (count, distinct)
        for producer_id, number, count, distinct in look.query(
            "split_part(execution_id, '/', 1), split_part(execution_id, '/', 2), "
            "count(*), count(DISTINCT execution_id) FROM logs GROUP BY ALL",
        )
    }
    for producer_id, upto in acknowledged.items():
        committed = look.numbers.get(producer_id, -1)
        assert committed >= upto, f"{producer_id}: {upto} was acknowledged, the table knows {committed}"
        found = {number: counts for (who, number), counts in counted.items() if who == producer_id}
        expected = {number: (rows_of(number), rows_of(number)) for number in range(committed + 1)}
        assert found == expected, _difference(producer_id, found, expected)
    return sum(count for count, _ in counted.values())


def _difference(producer_id: str, found: dict[int, Any], expected: dict[int, Any]) -> str:
    wrong = {number: found.get(number) for number in {*found, *expected} if found.get(number) != expected.get(number)}
    return f"{producer_id}: (rows, different rows) by number, where wrong: {wrong}"


def wait_for(look: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Look until it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


@contextlib.contextmanager
def load(service: Service, folder: Path, table: Path, clients: int = 2) -> Iterator[Load]:
    """Clients that write until the end of the block; none is left behind."""
    folder.mkdir(exist_ok=True)
    running = Load(service, table, [ClientProcess(service.name, f"client-{n}", folder) for n in range(clients)])
    try:
        for client in running.clients:
            client.begin()
        running.wait_for_progress()
        yield running
    finally:
        for client in running.clients:
            if client.process is not None and client.process.poll() is None:
                client.process.kill()
                client.process.wait()


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    write_until_told(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
