"""The writer actor: stages what it is given, and remembers nothing."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import ray

from actors.line import answer_jobs
from actors.wire import unpack
from sfwriter.arrays import use_returning_memory
from sfwriter.exceptions import WriterValidationError
from sfwriter.limits import process_memory
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.engine import BatchToStage

if TYPE_CHECKING:
    from actors.frames import Offer
    from actors.wire import Payload, Slice
    from sfwriter.storage.engine import StagedBatch, Table, TableSpec


SAID, SLACK_BYTES = 2, 4096
"""Rows that share a stream with others take a little more than they did alone: validity and alignment."""


class Writer:
    """Stages payloads as Parquet files. A second call may run beside it (ping)."""

    def __init__(self) -> None:
        """Open the engine, and no table."""
        use_returning_memory()
        self._engine = DeltaRsEngine()
        self._known: Any = None
        self._is_new = True
        self._table: Table | None = None

    def begin(self, offer: Offer | None, number: int) -> None:
        """Open a line to the coordinator, if it offers one, as the writer of this number."""
        if offer is not None:
            answer_jobs(offer, number, self.stage)

    def stage(self, spec: TableSpec, work: list[tuple[Payload, list[Slice]]]) -> StagedBatch:
        """Write the slices of these payloads into files of one table that nobody can see.

        Raises:
            WriterError: they cannot be staged; a payload that is not what it says is a
                `WriterValidationError`.
        """
        batches: list[BatchToStage] = []
        for payload, slices in work:
            streams = self._open(payload)
            honest = _as_large_as_said(streams, slices)
            for part in slices:
                if not 0 <= part.stream < len(streams):
                    raise WriterValidationError(
                        f"a payload has {len(streams)} streams where batch {part.token} claims number {part.stream}",
                        suggestions=["send batches with actors.connect(...), which packs them"],
                    )
                rows = streams[part.stream].slice(part.offset, part.rows)
                if rows.num_rows != part.rows or not (honest or _fits([rows], [part])):
                    raise WriterValidationError(
                        f"a payload has {rows.num_rows} rows of {rows.nbytes} bytes where batch {part.token} claims "
                        f"{part.rows} rows of {part.nbytes} bytes",
                        suggestions=["send batches with actors.connect(...), which packs them"],
                    )
                batches.append(BatchToStage(part.token, rows))
        if self._table is None or self._table.spec is not spec:
            self._table = self._engine.open(spec)
        staged = self._table.stage(batches)
        if self._is_new:
            # All that is loaded stays: walking it again and again made a job wait for 60 ms now and then.
            self._is_new = False
            gc.collect()
            gc.freeze()
        return staged

    def _open(self, payload: Payload) -> list[Any]:
        content = payload.inline if payload.reference is None else ray.get(payload.reference[0])
        try:
            streams = list(unpack(content, self._known))
        except Exception as error:
            raise WriterValidationError(
                f"a payload is not Arrow IPC: {error}",
                suggestions=["send batches with actors.connect(...), which packs them"],
            ) from error
        if streams:
            self._known = streams[-1].schema
        return streams

    def ping(self) -> dict[str, Any]:
        """Who and where it is, and its own memory."""
        return {
            "pid": os.getpid(),
            "node_id": ray.get_runtime_context().get_node_id(),
            "memory_bytes": process_memory().own,
        }


def _as_large_as_said(streams: list[Any], slices: list[Slice]) -> bool:
    """Whether the slices are all rows of all streams, each once, which take no more than the slices claim.

    Then none has to be measured by itself: that takes Arrow 60 µs, which is much for each of many small batches.
    """
    reached = [0] * len(streams)
    for part in slices:
        if not 0 <= part.stream < len(streams) or part.offset != reached[part.stream]:
            return False
        reached[part.stream] += part.rows
    return reached == [rows.num_rows for rows in streams] and _fits(streams, slices)


def _fits(tables: list[Any], slices: list[Slice]) -> bool:
    most = sum(SAID * part.nbytes + SLACK_BYTES for part in slices)
    # Whole buffers are at least as much as the rows in them, and told in 1 µs instead of 41.
    if sum(int(rows.get_total_buffer_size()) for rows in tables) <= most:
        return True
    return sum(int(rows.nbytes) for rows in tables) <= most


WriterActor = ray.remote(Writer)
