"""Several processes that do the same at the same time: each gets ready, all begin at once, each says what it did."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.child import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

READY = "ready"
GO = "go"


def wait_for_go() -> None:
    """Called by a member when it has everything it needs: returns when all others have, too."""
    print(READY, flush=True)
    if sys.stdin.readline().strip() != GO:
        raise RuntimeError("whoever started this process is gone")


class Crew:
    """Processes that are ready."""

    def __init__(self, members: list[subprocess.Popen[str]]) -> None:
        """Hold them."""
        self._members = members
        self._outputs: list[Future[tuple[str, str]]] = []

    def go(self) -> None:
        """Let all of them begin."""
        for member in self._members:
            assert member.stdin is not None
            member.stdin.write(f"{GO}\n")
            member.stdin.flush()
        # Read from now on: the latencies of an hour are more than a pipe holds.
        readers = ThreadPoolExecutor(len(self._members))
        self._outputs = [readers.submit(member.communicate) for member in self._members]
        readers.shutdown(wait=False)

    @property
    def working(self) -> bool:
        """Whether one of them has not ended."""
        return not all(output.done() for output in self._outputs)

    def figures(self) -> list[dict[str, Any]]:
        """What each found, when it has ended.

        Raises:
            RuntimeError: one failed.
        """
        found = []
        for member, told in zip(self._members, self._outputs, strict=True):
            output, errors = told.result()
            if member.returncode != 0:
                raise RuntimeError(f"a member ended with {member.returncode}: {errors.strip()[-1500:]}")
            found.append(json.loads(output.strip().splitlines()[-1]))
        return found

    def run(self) -> tuple[float, list[dict[str, Any]]]:
        """Let them work; the seconds until the last one has ended its work, and what each found."""
        began = time.time()
        self.go()
        found = self.figures()
        return max(member["ended"] for member in found) - began, found


@contextmanager
def crew(function: str, size: int, /, **arguments: Any) -> Iterator[Crew]:
    """So many processes that call a `module:function` with their `number` and these arguments, all of them ready.

    The function calls `wait_for_go` before its work, and gives figures with `ended`, the `time.time()` of its end.
    """
    members = []
    try:
        for number in range(size):
            text = json.dumps({**arguments, "number": number})
            command = [sys.executable, "-m", "benchmarks.child", function, text]
            members.append(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
        for member in members:
            assert member.stdout is not None
            if member.stdout.readline().strip() != READY:
                raise RuntimeError(f"a member could not begin: {member.communicate()[1].strip()[-1500:]}")
        yield Crew(members)
    finally:
        for member in members:
            if member.poll() is None:
                member.kill()
            member.wait()
