"""Adds columns to a table that is there, through delta-rs.

Receives: the action `AddColumns`.
Produces: its figures.
Guarantees: one metadata entry in the log with all the columns, flushed to the disk; files, rows and every
    other column stay as they are. Somebody who adds columns at the same time is no error.
Never does: create a table, or change a column that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import Field, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError

from sfwriter.exceptions import WriterTableError
from sfwriter.storage.delta_features import features_in_the_way
from sfwriter.storage.delta_log import open_table
from sfwriter.storage.delta_read import arrow_schema
from sfwriter.storage.faults import reported_by_delta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import AddColumns, TableSpec

_TRIES = 5
"""Each follows a rival's change of the table's columns: there are not many of those."""

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def missing_columns(schema: pa.Schema, action: AddColumns) -> list[pa.Field]:
    """What a table of this schema lacks; names that differ only in case are one."""
    known = {name.lower() for name in schema.names}
    return [column for column in action.columns if column.name.lower() not in known]


def add_columns(spec: TableSpec, identity: TableIdentity, disk: LogDisk, action: AddColumns) -> Mapping[str, Any]:
    """Carry the action out.

    Raises:
        WriterTableError: there is no table, or its log cannot be written.
    """
    with reported_by_delta("add columns to", spec):
        for attempt in range(1, _TRIES + 1):
            table = open_table(spec, with_files=False)
            identity.check(table)
            if table is None:
                raise WriterTableError(
                    f"There is no table {spec.name} at {spec.location}.",
                    context={"table": spec.name, "location": spec.location},
                    suggestions=["Correct the name or the path."],
                    code="table_missing",
                )
            refused = sorted(features_in_the_way(table))
            new = missing_columns(arrow_schema(table), action)
            if refused or action.dry_run or not new:
                names = [column.name for column in new]
                return {"refused": refused, "added": names, "version": table.version()}
            fields = Schema.from_arrow(pa.schema(new)).fields
            try:
                table.alter.add_columns([Field(field.name, field.type, nullable=True) for field in fields],
                                        post_commithook_properties=_NO_HOOKS)  # fmt: skip
            except CommitFailedError:
                if attempt == _TRIES:
                    raise
                continue
            table.update_incremental()
            disk.settle(table.version())
            return {"refused": [], "added": [column.name for column in new], "version": table.version()}
    raise AssertionError("the last try returns or raises")
