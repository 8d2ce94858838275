"""A backfill by the command line, killed in the middle and resumed by the same command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from deploy.demo.proof import live_files
from sfwriter.testing.rows import log_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.demo.processes import Household

ROWS_A_FILE = 125_000
LOOK_EVERY_S = 0.01


class BackfillError(Exception):
    """The command failed where it should not have."""


@dataclass(frozen=True)
class Told:
    """What a run of the command said, or left.

    Attributes:
        committed_before: rows in the table when it began.
        committed: rows in the table when it had ended.
        seconds: of the whole command.
        killed: whether it was killed.
        said: its JSON result; empty where it was killed.
    """

    committed_before: int
    committed: int
    seconds: float
    killed: bool
    said: dict[str, Any]


def generate(folder: Path, rows: int) -> list[Path]:
    """Write the rows to be backfilled into Parquet files."""
    folder.mkdir(parents=True)
    paths = []
    for number, table in enumerate(log_tables(rows, ROWS_A_FILE)):
        paths.append(folder / f"part-{number:03}.parquet")
        pq.write_table(table, paths[-1], compression="zstd")
    return paths


class Backfill:
    """The command, which can be run again and again."""

    def __init__(self, household: Household, warehouse: Path, source: Path, table: str, log: Path) -> None:
        """Begin with nothing run.

        Args:
            household: starts the processes.
            warehouse: the tables' folder.
            source: the folder that is backfilled.
            table: `schema.name`.
            log: file that takes what the command says on stderr.
        """
        self._household = household
        self._source = source
        self._table = table
        self._log = log
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("SFWRITER_")}
        self._environment["SFWRITER_WAREHOUSE"] = str(warehouse)
        self.folder = warehouse.joinpath(*table.split("."))

    @property
    def command(self) -> str:
        """As a user would type it."""
        return f"sfwriter backfill {self._source.name} --table {self._table}"

    def run(self, progress: Callable[[int], None], kill_at: int | None = None) -> Told:
        """Run the command to its end, or SIGKILL it as soon as the table holds `kill_at` rows.

        Raises:
            BackfillError: it failed.
        """
        before, began = self._committed(), time.monotonic()
        arguments = [
            str(Path(sys.executable).with_name("sfwriter")),
            "backfill",
            str(self._source),
            "--table",
            self._table,
            "--json",
        ]
        with self._log.open("a", encoding="utf-8") as log:
            process = self._household.start(arguments, env=self._environment, stdout=subprocess.PIPE, stderr=log)
            killed = self._watch(process, progress, kill_at)
            output = process.communicate()[0]
        seconds = time.monotonic() - began
        if not killed and process.returncode != 0:
            lines = self._log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"]
            raise BackfillError(f"{self.command} ended with {process.returncode}: {lines[-1]}")
        return Told(before, self._committed(), seconds, killed, {} if killed else json.loads(output))

    def _watch(self, process: subprocess.Popen[str], progress: Callable[[int], None], kill_at: int | None) -> bool:
        while process.poll() is None:
            self._household.check()
            committed = self._committed()
            progress(committed)
            if kill_at is not None and committed >= kill_at:
                process.kill()
                return process.wait() < 0
            time.sleep(LOOK_EVERY_S)
        return False

    def _committed(self) -> int:
        if not (self.folder / "_delta_log").exists():
            return 0
        return live_files(self.folder).log_rows
