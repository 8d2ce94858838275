"""Makes a Delta table, once, however many processes want it at the same moment.

Receives: a spec of which no table exists.
Produces: the table, on the disk with all its folders.
Guarantees: of the processes of one machine one creates and the others find what it made.
Never does: touch a folder that holds something else.
"""

from __future__ import annotations

import logging
import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable

from sfwriter.exceptions import WriterTableError
from sfwriter.storage.columns import check_writable
from sfwriter.storage.delta_log import is_vacant, open_table, uri_of
from sfwriter.storage.faults import reported_by_delta
from sfwriter.storage.place import local_root, make_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.storage.delta_log import LogDisk
    from sfwriter.storage.engine import TableSpec

_log = logging.getLogger(__name__)

CHECKPOINT_INTERVAL = "delta.checkpointInterval"
"""In commits: Delta on Spark writes a checkpoint in the middle of each such commit."""

_LAYOUT = "1"
"""Of the tables that this library makes; a later one may look here to know what it opens."""


def create_table(spec: TableSpec, disk: LogDisk) -> DeltaTable:
    """The new table, or the one that another process made in the meantime; a handle with files.

    Raises:
        WriterTableError: it cannot be made, or its folder holds something else.
        WriterSchemaError: the spec has a column that Delta cannot hold.
    """
    check_writable(spec.schema, spec)
    with reported_by_delta("create", spec), _alone(spec):
        table = open_table(spec, with_files=True)
        if table is not None:
            return table
        if not is_vacant(spec):
            raise WriterTableError(
                f"{spec.location} is a folder with other things in it, and no Delta table.",
                context={"table": spec.name, "location": spec.location},
                suggestions=["Choose another table name or `warehouse`, or empty that folder yourself."],
                code="not_a_table",
            )
        # `ignore`: on another machine somebody may have been faster.
        DeltaTable.create(
            uri_of(spec),
            spec.schema,
            mode="ignore",
            partition_by=list(spec.partition_columns),
            configuration=properties_of(spec),
            storage_options=dict(spec.storage_options),
            raise_if_key_not_exists=False,
        )
        disk.settle_new_table()
        table = open_table(spec, with_files=True)
        if table is None:
            raise FileNotFoundError(2, "It was gone as soon as it was made", spec.location)
        return table


def properties_of(spec: TableSpec) -> dict[str, str | None]:
    """The properties of a new table."""
    statistics = [
        name for name in spec.statistics_columns if name in spec.schema.names and name not in spec.partition_columns
    ]
    # Spark refuses every change of a table's columns where a column is named that it cannot skip by.
    statistics = [name for name in statistics if can_be_skipped_by(spec.schema.field(name).type)]
    return {
        # Named, not counted: Delta's default of the first 32 columns makes every commit dearer.
        "delta.dataSkippingStatsColumns": ",".join(statistics),
        "delta.setTransactionRetentionDuration": _interval(spec.producer_retention_days),
        # The engines write one every 50 versions, beside the commits.
        CHECKPOINT_INTERVAL: "1000",
        # As long as deleted files are kept by default: older versions cannot be read anyway.
        "delta.logRetentionDuration": "interval 7 days",
        "sfwriter.layout": _LAYOUT,
    }


def can_be_skipped_by(kind: pa.DataType) -> bool:
    """Whether Delta on Spark takes a column of this type for data skipping."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _interval(days: float) -> str:
    return f"interval {max(1, math.ceil(days * 24))} hours"


@contextmanager
def _alone(spec: TableSpec) -> Iterator[None]:
    """Keep the other processes of this machine out: two creations can both succeed in delta-rs.

    The lock is on the parent folder itself, so it leaves no file behind and ends with the process.
    """
    root = local_root(spec.location)
    if root is None:
        yield
        return
    make_folders(root.parent, fsync=spec.fsync)
    descriptor = os.open(root.parent, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        import fcntl  # not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        # Some network file systems cannot lock a folder; then `mode="ignore"` is all there is.
        _log.debug("No lock on the table's parent folder: %s", error)
