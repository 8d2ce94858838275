"""What the pipelines say that they gave, beside the table: the proof's other side.

One pair of files for each pipeline process, JSON lines: `given-<n>.jsonl` has a line for each row, written
before the row is handed over; `acknowledged-<n>.jsonl` one for each batch that was acknowledged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType


class Ledger:
    """Writes the ledger of one process. Lines are flushed to the system at once; no thread-safety."""

    def __init__(self, folder: Path, number: int) -> None:
        """Open both files, empty."""
        folder.mkdir(parents=True, exist_ok=True)
        self._given = (folder / f"given-{number}.jsonl").open("w", encoding="utf-8")
        self._acknowledged = (folder / f"acknowledged-{number}.jsonl").open("w", encoding="utf-8")

    def given(self, run_id: str | None, step_names: Iterable[str]) -> None:
        """Note rows that are about to be handed over."""
        for step_name in step_names:
            self._given.write(json.dumps({"run_id": run_id, "step_name": step_name}) + "\n")
        self._given.flush()

    def acknowledged(self, result: Mapping[str, Any]) -> None:
        """Note a batch that is durable."""
        line = {"batch_id": result["batch_id"], "rows": result["rows_written"], "version": result["version"]}
        self._acknowledged.write(json.dumps(line) + "\n")
        self._acknowledged.flush()

    def __enter__(self) -> Ledger:  # noqa: PYI034  Python 3.10 has no Self
        """The ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both files."""
        self._given.close()
        self._acknowledged.close()
