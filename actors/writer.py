"""The writer actor: stages what it is given, and remembers nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ray

from actors.wire import unpack
from sfwriter.exceptions import WriterError, WriterValidationError
from sfwriter.limits import process_memory
from sfwriter.runtime.blueprint import quarantine_table_spec
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.engine import BatchToStage

if TYPE_CHECKING:
    from actors.wire import Payload, Slice
    from sfwriter.config import WriterConfig
    from sfwriter.storage.engine import StagedBatch, TableSpec


class Writer:
    """Stages payloads as Parquet files. A second call may run beside it (ping)."""

    def __init__(self, config: WriterConfig) -> None:
        """Open the engine, and no table."""
        self._engine = DeltaRsEngine()
        self._quarantine = quarantine_table_spec(config).name

    def stage(self, spec: TableSpec, work: list[tuple[Payload, list[Slice]]]) -> StagedBatch:
        """Write the slices of these payloads into files of one table that nobody can see.

        Raises:
            WriterError: they cannot be staged; a payload that is not what it says is a
                `WriterValidationError`.
        """
        batches: list[BatchToStage] = []
        for payload, slices in work:
            rows = self._open(payload, set_aside=spec.name == self._quarantine)
            for part in slices:
                if part.offset + part.rows > rows.num_rows:
                    raise WriterValidationError(
                        f"a payload has {rows.num_rows} rows where batch {part.token} claims "
                        f"{part.offset} to {part.offset + part.rows}",
                        suggestions=["send batches with actors.connect(...), which packs them"],
                    )
                batches.append(BatchToStage(part.token, rows.slice(part.offset, part.rows)))
        return self._engine.open(spec).stage(batches)

    def _open(self, payload: Payload, *, set_aside: bool) -> Any:
        content = payload.inline if payload.reference is None else ray.get(payload.reference[0])
        try:
            return unpack(content, set_aside=set_aside)
        except WriterError:
            raise
        except Exception as error:
            raise WriterValidationError(
                f"a payload is not Arrow IPC: {error}",
                suggestions=["send batches with actors.connect(...), which packs them"],
            ) from error

    def ping(self) -> dict[str, Any]:
        """Who and where it is, and its own memory."""
        return {
            "pid": os.getpid(),
            "node_id": ray.get_runtime_context().get_node_id(),
            "memory_bytes": process_memory().own,
        }


WriterActor = ray.remote(Writer)
