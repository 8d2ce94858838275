"""What a Delta table asks of its writers, and whether this engine can give it.

Receives: a table's protocol, properties and schema, as delta-rs reads them.
Produces: nothing, or a `WriterTableError` that names the features.
Guarantees: a table that passes can be appended to by files that pyarrow wrote, without breaking a
    promise of the table, and be read back whole.
Never does: upgrade a protocol, or switch a feature off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterTableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deltalake import DeltaTable

    from sfwriter.storage.engine import TableSpec

_HARMLESS = {"appendOnly", "invariants", "checkConstraints", "generatedColumns", "changeDataFeed", "timestampNtz"}
"""Writer features that an append of whole files keeps, as long as no column or property uses the ones
that `_in_use` looks for. What delta-rs cannot append to (clustering, rowTracking, …) and what it cannot
read back (deletionVectors, columnMapping, v2Checkpoint) is not among them."""

_READABLE = {"timestampNtz"}

_COLUMN_FEATURES = {
    "delta.generationExpression": "generated columns",
    "delta.invariants": "column invariants",
    "delta.identity.start": "identity columns",
}


def check_writable_table(table: DeltaTable, spec: TableSpec) -> None:
    """Raise `WriterTableError` where an append by this engine would break the table, or its rows' promises."""
    refused = features_in_the_way(table)
    if refused:
        raise unsupported(refused, "write to", spec)


def features_in_the_way(table: DeltaTable) -> set[str]:
    """What the table uses that whole files written by pyarrow would break; empty where nothing is in the way."""
    protocol = table.protocol()
    refused = set(protocol.writer_features or ()) - _HARMLESS
    refused |= set(protocol.reader_features or ()) - _READABLE
    if protocol.min_writer_version > 7 or protocol.min_reader_version > 3:
        refused.add(f"protocol {protocol.min_reader_version}/{protocol.min_writer_version}")
    refused.update(_in_use(table))
    return refused


def check_readable_table(table: DeltaTable, spec: TableSpec) -> None:
    """Raise `WriterTableError` where this engine would read or count wrong rows."""
    refused = unreadable_features(table)
    if refused:
        raise unsupported(refused, "read", spec)


def unreadable_features(table: DeltaTable) -> set[str]:
    """What the table uses that its list of files alone does not tell; empty where there is nothing of the kind."""
    protocol = table.protocol()
    refused = set(protocol.reader_features or ()) - _READABLE
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        refused.add("columnMapping")
    return refused


def _in_use(table: DeltaTable) -> Iterable[str]:
    properties = table.metadata().configuration
    if properties.get("delta.columnMapping.mode", "none") != "none":
        yield "columnMapping"
    if any(name.startswith("delta.constraints.") for name in properties):
        yield "CHECK constraints"
    for column in table.schema().fields:
        for key in column.metadata:
            if key in _COLUMN_FEATURES:
                yield f"{_COLUMN_FEATURES[key]} ({column.name})"


def unsupported(features: Iterable[str], verb: str, spec: TableSpec) -> WriterTableError:
    """The error for a table that uses what this engine does not have."""
    named = ", ".join(sorted(features))
    return WriterTableError(
        f"The embedded engine cannot {verb} {spec.name}: the table uses {named}.",
        context={"table": spec.name, "location": spec.location, "features": sorted(features)},
        suggestions=["Give LogWriter a SparkSession: the Spark engine supports these features.",
                     "Or write to a table without them."],
        code="unsupported_features",
    )  # fmt: skip
