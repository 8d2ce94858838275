"""Maintenance of a Delta table through Spark SQL: OPTIMIZE, Z-order, VACUUM.

Receives: actions of `sfwriter.storage.engine`.
Produces: their figures.
Guarantees: what `DeltaMaintainer` guarantees; settings that an action needs are those of a session of its own.
Never does: leave a setting behind; delete what a commit may still name.

Looking (survey, history) is done through delta-rs: it reads the log and nothing else.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sfwriter.storage.delta_maintain import DeltaMaintainer
from sfwriter.storage.engine import Compact
from sfwriter.storage.place import local_root
from sfwriter.storage.spark_faults import first_words_of, is_rival, reported_by_spark
from sfwriter.storage.spark_scan import by_path, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import Sort, TableSpec, Vacuum
    from sfwriter.storage.spark_bridge import SparkBridge

_CODECS = {"none": "uncompressed"}


class RivalInTheWay(Exception):  # noqa: N818  an outcome, not a failure
    """Others changed the files that were to be rewritten; nothing landed."""


class SparkMaintainer(DeltaMaintainer):
    """Carries out actions on one table through Spark. Thread-safe: they take turns."""

    _rivals: type[Exception] = RivalInTheWay

    def __init__(
        self, spec: TableSpec, identity: TableIdentity, disk: LogDisk, clock: Clock, *, bridge: SparkBridge
    ) -> None:
        """Touch nothing yet."""
        super().__init__(spec, identity, disk, clock)
        self._bridge = bridge

    def _rewrite(self, table: DeltaTable, action: Compact | Sort) -> Mapping[str, Any]:  # noqa: ARG002  Spark has its own look
        conf = {
            "spark.databricks.delta.optimize.maxFileSize": str(action.target_bytes),
            "spark.databricks.delta.optimize.minFileSize": str(action.target_bytes),
            # Statistics name the columns that this library asks by; Z-order on others is still an order.
            "spark.databricks.delta.optimize.zorder.checkStatsCollection.enabled": "false",
            "spark.sql.parquet.compression.codec": _CODECS.get(self._spec.compression, self._spec.compression),
        }
        query = f"OPTIMIZE {by_path(self._path())}{self._where(action.filters)}"
        if not isinstance(action, Compact):
            query += f" ZORDER BY ({', '.join(map(quoted, action.columns))})"
        with reported_by_spark("optimize", self._spec), self._bridge.acting(self._bridge.private(conf)) as session:
            try:
                figures = session.sql(query).collect()[0]["metrics"]
            except Exception as error:
                if is_rival(error):
                    raise RivalInTheWay(first_words_of(error)) from error
                raise
        return {
            "numFilesAdded": figures["numFilesAdded"],
            "numFilesRemoved": figures["numFilesRemoved"],
            "filesRemoved": json.dumps({"totalSize": figures["filesRemoved"]["totalSize"]}),
        }

    def _where(self, filters: tuple[tuple[str, str, str], ...]) -> str:
        if not filters:
            return ""
        said = [
            # What delta-rs takes for null is an empty text.
            f"{quoted(name)} IS NULL" if not value else f"{quoted(name)} = '{_escaped(value)}'"
            for name, _, value in filters
        ]
        return f" WHERE {' AND '.join(said)}"

    def _delete_files(self, table: DeltaTable, action: Vacuum) -> list[str]:  # noqa: ARG002  Spark has its own look
        conf = {
            # Without it RETAIN is ignored, and with the check on the plan's own comparison would be refused.
            "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false",
            "spark.databricks.delta.retentionDurationCheck.enabled": "false",
        }
        kind = "FULL" if action.full else "LITE"
        hours = math.ceil(action.retention_hours)
        query = f"VACUUM {by_path(self._path())} {kind} RETAIN {hours} HOURS"
        with reported_by_spark("vacuum", self._spec), self._bridge.acting(self._bridge.private(conf)) as session:
            found = [str(row[0]) for row in session.sql(f"{query} DRY RUN").collect()]
            deleted = [self._relative(path) for path in found]
            if deleted and not action.dry_run:
                session.sql(query).collect()
        return deleted

    def _relative(self, path: str) -> str:
        plain = unquote(path.removeprefix("file://").removeprefix("file:"))
        root = self._path().rstrip("/")
        return plain.removeprefix(f"{root}/")

    def _path(self) -> str:
        root = local_root(self._spec.location)
        return self._spec.location if root is None else str(root)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
