"""Staged rows written once more, by Spark: for tables whose features pyarrow does not know.

Receives: a Delta transaction and the groups' staged files.
Produces: the actions that add what Spark wrote.
Guarantees: constraints, generated and identity columns, column mapping and the like are Delta's own doing, inside
    the transaction that commits them; a row that breaks one is a `WriterValidationError` that names the staged
    batch.
Never does: commit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterValidationError
from sfwriter.storage.spark_faults import reported_by_spark
from sfwriter.storage.spark_scan import frame_of_files
from sfwriter.storage.staging import staged_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfwriter.storage.engine import CommitGroup, StagedBatch, TableSpec
    from sfwriter.storage.spark_bridge import SparkBridge


def written_by_spark(bridge: SparkBridge, spec: TableSpec, transaction: Any, group: CommitGroup) -> list[Any]:
    """Write the group's rows through the transaction, and give the actions."""
    staged = [(position, batch) for position, batch in enumerate(group.staged) if batch.files]
    if not staged:
        return []
    try:
        return _written(bridge, spec, transaction, [batch for _, batch in staged])
    except WriterValidationError as error:
        if len(staged) == 1:
            error.context["positions"] = (staged[0][0],)
            raise
        # Some batch breaks a rule of the table: which? What is written here for trial no commit will name.
        error.context["positions"] = tuple(
            position for position, batch in staged if _breaks_a_rule(bridge, spec, transaction, batch)
        )
        raise


def _breaks_a_rule(bridge: SparkBridge, spec: TableSpec, transaction: Any, batch: StagedBatch) -> bool:
    try:
        _written(bridge, spec, transaction, [batch])
    except WriterValidationError:
        return True
    return False


def _written(bridge: SparkBridge, spec: TableSpec, transaction: Any, staged: Sequence[StagedBatch]) -> list[Any]:
    with reported_by_spark("write to", spec):
        frame = _frame(bridge, spec, staged)
        size = sum(batch.size_bytes for batch in staged)
        frame = frame.coalesce(max(1, math.ceil(size / spec.max_file_bytes)))
        found = transaction.writeFiles(frame._jdf)  # noqa: SLF001  there is no public way
        return [found.apply(position) for position in range(found.size())]


def _frame(bridge: SparkBridge, spec: TableSpec, staged: Sequence[StagedBatch]) -> Any:
    """The rows of all staged batches; what one of them lacks is null in it."""
    session = bridge.session
    frames = [
        frame_of_files(session, spec.location, staged_schema(batch), [file.path for file in batch.files])
        for batch in staged
    ]
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.unionByName(frame, allowMissingColumns=True)
    return whole
