"""Maintenance through Spark SQL alone, by a table's address: statements, and what they answer.

Receives: actions of `sfwriter.storage.engine`.
Produces: their figures.
Guarantees: settings that an action needs are those of a session of its own.
Never does: open a file.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.storage.adding import missing_columns
from sfwriter.storage.delta_commit import RETENTION_SHARE, retention_of_ms
from sfwriter.storage.engine import AddColumns, Checkpoint, Compact, History, Partition, Sort, Survey, Vacuum, Version
from sfwriter.storage.faults import unknown_action
from sfwriter.storage.spark_catalog import columns_sql
from sfwriter.storage.spark_faults import reported_by_spark
from sfwriter.storage.spark_scan import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfwriter.storage.engine import TableSpec, TableStats
    from sfwriter.storage.spark_bridge import SparkBridge
    from sfwriter.storage.spark_look import SparkLook

_CODECS = {"none": "uncompressed"}
_CODEC = re.compile(r"\.(snappy|zstd|lz4|gzip|gz|none|uncompressed)\.parquet$")
_HOUR_MS = 3_600_000.0


def tend(
    action: Any, found: TableStats, *, spec: TableSpec, bridge: SparkBridge, address: str, look: SparkLook
) -> Mapping[str, Any]:
    """Carry out an action; `found` is what is there before."""
    if isinstance(action, History):
        return {"versions": [_version(entry) for entry in look.history(action.limit)]}
    if isinstance(action, Survey):
        return _survey(found, action, spec, bridge, address)
    if isinstance(action, (Compact, Sort)):
        metrics = optimized(bridge, spec, address, action)
        return figures_of(metrics, look.stats(counted=False).version)
    if isinstance(action, Vacuum):
        return {"files_deleted": sorted(vacuumed(bridge, spec, address, action)), "version": found.version}
    if isinstance(action, Checkpoint):
        # There is no statement for it: Delta writes one by itself every `delta.checkpointInterval` commits.
        return {"version": found.version}
    if isinstance(action, AddColumns):
        return _with_columns(found, action, spec=spec, bridge=bridge, address=address, look=look)
    raise unknown_action(action, spec)


def _with_columns(
    found: TableStats, action: AddColumns, *, spec: TableSpec, bridge: SparkBridge, address: str, look: SparkLook
) -> Mapping[str, Any]:
    """ALTER TABLE, which knows what the table's features allow."""
    new = missing_columns(found.schema or pa.schema([]), action)
    version = found.version
    if new and not action.dry_run:
        with reported_by_spark("add columns to", spec), bridge.acting() as session:
            session.sql(f"ALTER TABLE {address} ADD COLUMNS ({columns_sql(pa.schema(new))})")
        version = look.stats(counted=False).version
    return {"refused": [], "added": [column.name for column in new], "version": version}


def optimized(bridge: SparkBridge, spec: TableSpec, address: str, action: Compact | Sort) -> Mapping[str, Any]:
    """OPTIMIZE, and its metrics."""
    conf = {
        "spark.databricks.delta.optimize.maxFileSize": str(action.target_bytes),
        "spark.databricks.delta.optimize.minFileSize": str(action.target_bytes),
        # Statistics name the columns that this library asks by; Z-order on others is still an order.
        "spark.databricks.delta.optimize.zorder.checkStatsCollection.enabled": "false",
        "spark.sql.parquet.compression.codec": _CODECS.get(spec.compression, spec.compression),
    }
    query = f"OPTIMIZE {address}{_where(action.filters)}"
    if isinstance(action, Sort):
        query += f" ZORDER BY ({', '.join(map(quoted, action.columns))})"
    with bridge.acting(bridge.private(conf)) as session:
        metrics: Mapping[str, Any] = session.sql(query).collect()[0]["metrics"].asDict(recursive=True)
        return metrics


def figures_of(metrics: Mapping[str, Any], version: int) -> Mapping[str, Any]:
    """OPTIMIZE's metrics as the figures of `sfwriter.storage.engine`; `version` is the one that it left."""
    return {
        "files_added": metrics["numFilesAdded"],
        "files_removed": metrics["numFilesRemoved"],
        "bytes_rewritten": metrics["filesRemoved"]["totalSize"],
        "version": version,
    }


def vacuumed(bridge: SparkBridge, spec: TableSpec, address: str, action: Vacuum) -> list[str]:
    """VACUUM, and the paths of what it deleted, or would delete."""
    conf = {
        # Without it RETAIN is ignored, and with the check on the plan's own comparison would be refused.
        "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    }
    kind = "FULL" if action.full else "LITE"
    query = f"VACUUM {address} {kind} RETAIN {math.ceil(action.retention_hours)} HOURS"
    with reported_by_spark("vacuum", spec), bridge.acting(bridge.private(conf)) as session:
        deleted = [str(row[0]) for row in session.sql(f"{query} DRY RUN").collect()]
        if deleted and not action.dry_run:
            session.sql(query).collect()
    return deleted


def _where(filters: tuple[tuple[str, str, str], ...]) -> str:
    said = [
        # What delta-rs takes for null is an empty text.
        f"{quoted(name)} IS NULL" if not value else f"{quoted(name)} = '{_escaped(value)}'"
        for name, _, value in filters
    ]
    return f" WHERE {' AND '.join(said)}" if said else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _survey(found: TableStats, action: Survey, spec: TableSpec, bridge: SparkBridge, address: str) -> Mapping[str, Any]:
    names = list(found.partition_columns)
    asked = action.ranges_of if action.ranges_of in (found.schema.names if found.schema else ()) else None
    ranges = f", min({quoted(asked)}) AS low, max({quoted(asked)}) AS high" if asked else ""
    keys = "".join(f", CAST({quoted(name)} AS STRING) AS {quoted(name)}" for name in names)
    by = ", ".join(["_metadata.file_path", "_metadata.file_size", *map(quoted, names)])
    query = (
        f"SELECT _metadata.file_path AS path, _metadata.file_size AS size, count(*) AS rows{ranges}{keys}"  # noqa: S608  quoted names
        f" FROM {address} GROUP BY {by}"
    )
    with reported_by_spark("look at the files of", spec), bridge.acting() as session:
        files = session.sql(query).toArrow().to_pylist()
    groups: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        groups.setdefault("/".join(f"{name}={file[name]}" for name in names), []).append(file)
    retention_ms = retention_of_ms(found.properties.get("delta.deletedFileRetentionDuration"))
    return {
        "partitions": {name: _partition(names, group, action) for name, group in groups.items()},
        "retention_hours": retention_ms / _HOUR_MS,
        "safe_retention_hours": RETENTION_SHARE * retention_ms / _HOUR_MS,
        "log_entries": None,
        "without_statistics": 0,
    }


def _partition(names: list[str], files: list[dict[str, Any]], action: Survey) -> Partition:
    codecs = [match[1] for file in files if (match := _CODEC.search(file["path"]))]
    ranges = tuple(
        None if file.get("low") is None or file.get("high") is None else (file["low"], file["high"]) for file in files
    )
    return Partition(
        filters=tuple((name, "=", "" if files[0][name] is None else str(files[0][name])) for name in names),
        sizes=tuple(int(file["size"]) for file in files),
        rows=sum(int(file["rows"]) for file in files),
        codecs=frozenset(codecs),
        ranges=() if action.ranges_of is None else ranges,
    )


def _version(entry: Mapping[str, Any]) -> Version:
    moment = entry.get("timestamp")
    text = entry.get("userMetadata")
    try:
        notes = json.loads(text) if text else {}
    except ValueError:
        notes = {"text": text}
    return Version(
        int(entry["version"]),
        None if moment is None else int(moment.timestamp() * 1000),
        str(entry.get("operation", "unknown")),
        None,
        None,
        notes if isinstance(notes, dict) else {"text": text},
    )
