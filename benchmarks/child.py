"""Runs one function in a process of its own, where memory, imports and threads begin anew.

`python -m benchmarks.child module:function '<json of its keyword arguments>'` prints its figures as the
last line of stdout, with `peak_bytes` added.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 1800.0


def in_child(function: str, /, **arguments: Any) -> dict[str, float]:
    """Call `module:function` of this package in a fresh process and return its figures.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    command = [sys.executable, "-m", "benchmarks.child", f"benchmarks.cases.{function}", json.dumps(arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if process.returncode != 0:
        said = (errors.strip() or output.strip()).splitlines()[-12:]
        raise RuntimeError(f"{function} ended with {process.returncode}: " + "\n".join(said))
    figures: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return figures


def peak_bytes() -> int:
    """The most memory that was resident in this process since it began.

    Not `getrusage`: its maximum also knows the process that this one was forked from.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def main() -> None:
    """Run what the command line names."""
    module, _, name = sys.argv[1].partition(":")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    figures = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print(json.dumps({**figures, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
