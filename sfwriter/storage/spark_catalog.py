"""A table that a Spark catalog knows by name: found, or made there, and then a table like any other.

Receives: a spec of which only the name counts; where the table is, the catalog decides.
Produces: what the table behind the name produces.
Guarantees: schema and table are made where they are missing, and a table that exists is taken as it is. A name
    that stands for a view, or for a table of another format, is an error that says so.
Never does: keep a second idea of the table: once found, every call goes to it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterTableError
from sfwriter.storage.columns import check_writable
from sfwriter.storage.creation import CHECKPOINT_INTERVAL, properties_of
from sfwriter.storage.engine import TableStats, Watermark
from sfwriter.storage.spark_faults import reported_by_spark
from sfwriter.storage.spark_scan import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from sfwriter.storage.engine import (
        BatchToStage,
        CommitGroup,
        CommitReceipt,
        StagedBatch,
        Table,
        TableSpec,
    )
    from sfwriter.storage.spark_bridge import SparkBridge


_RETENTION = "delta.setTransactionRetentionDuration"
_CHECKPOINT_INTERVAL = "100"
"""Of tables to which Spark alone commits: each makes a commit wait for some seconds."""


class CatalogTable:
    """One table by its name in the session's catalog. As thread-safe as the table behind it."""

    def __init__(self, spec: TableSpec, bridge: SparkBridge, open_at: Callable[[TableSpec], Table]) -> None:
        """Touches nothing yet; `open_at` gives the table at the location of a spec."""
        self._named = spec
        self._bridge = bridge
        self._open_at = open_at
        self._found: Table | None = None
        self._lock = threading.Lock()

    @property
    def spec(self) -> TableSpec:
        """Of the table behind the name; before it is made, with the place where the catalog will make it."""
        return self._named if self._found is None else self._found.spec

    @property
    def staging_spec(self) -> TableSpec | None:
        """By which rows may be staged elsewhere, after `ensure()`."""
        return getattr(self._found, "staging_spec", None)

    # ------------------------------------------------------------ the eight calls

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """See `sfwriter.storage.engine`."""
        return self._existing().stage(batches)

    def discard(self, staged: StagedBatch) -> None:
        """See `sfwriter.storage.engine`."""
        self._existing().discard(staged)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """See `sfwriter.storage.engine`."""
        return self._existing().commit(group)

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """See `sfwriter.storage.engine`."""
        table = self._looked_for()
        if table is None:
            return {producer: Watermark(None, -1) for producer in producers}
        return table.last_sequence(producers)

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """See `sfwriter.storage.engine`."""
        return self._existing().scan(columns, predicate)

    def stats(self) -> TableStats:
        """See `sfwriter.storage.engine`."""
        table = self._looked_for()
        return TableStats(exists=False) if table is None else table.stats()

    def ensure(self) -> TableStats:
        """Make the schema and the table where they are missing, and say what is there."""
        table = self._looked_for()
        if table is None:
            self._make()
            table = self._existing()
        return table.ensure()

    def run(self, action: Any) -> Mapping[str, Any]:
        """See `sfwriter.storage.engine`."""
        return self._existing().run(action)

    # ------------------------------------------------------------ the name

    def _existing(self) -> Table:
        table = self._looked_for()
        if table is None:
            raise WriterTableError(
                f"There is no table {self._named.name} in the catalog of this session.",
                context={"table": self._named.name},
                suggestions=["Write to it first, or correct the name."],
                code="table_missing",
            )
        return table

    def _looked_for(self) -> Table | None:
        with self._lock:
            if self._found is None:
                self._bridge.check()
                with reported_by_spark("look for", self._named), self._bridge.acting() as session:
                    location = self._location(session)
                    if location is None:
                        self._named = replace(self._named, location=self._future_location())
                if location is not None:
                    self._found = self._open_at(replace(self._named, location=location))
            return self._found

    def _future_location(self) -> str:
        """Where a new table would be; empty where only the server knows."""
        if self._bridge.connect:
            return ""
        schema, name = self._named.name.split(".", 1)
        state = self._bridge.session._jsparkSession.sessionState()  # noqa: SLF001  there is no public way
        catalog = state.catalog()
        folder = (
            catalog.getDatabaseMetadata(schema).locationUri()
            if catalog.databaseExists(schema)
            else catalog.getDefaultDBPath(schema)
        )
        path = plain_path(str(folder.toString())).rstrip("/")
        if not path.startswith("/") and "://" not in path:
            path = f"{plain_path(str(state.conf().warehousePath())).rstrip('/')}/{path}"
        return f"{path}/{name}"

    def _location(self, session: Any) -> str | None:
        name = self._quoted_name()
        if not session.catalog.tableExists(name):
            return None
        kind = str(session.catalog.getTable(name).tableType)
        if kind in ("VIEW", "TEMPORARY"):
            raise self._unfit("is a view", "Name a table, or another `table_name`: a view cannot be written to.")
        detail = session.sql(f"DESCRIBE DETAIL {name}").collect()[0]
        if str(detail["format"]) != "delta":
            raise self._unfit(
                f"is a table of format {detail['format']}",
                "Choose another `table_name`, or make a Delta table of it: CONVERT TO DELTA.",
            )
        return plain_path(str(detail["location"]))

    def _unfit(self, what: str, advice: str) -> WriterTableError:
        return WriterTableError(
            f"{self._named.name} {what} in the catalog of this session, and no Delta table.",
            context={"table": self._named.name},
            suggestions=[advice],
            code="not_a_table",
        )

    def _quoted_name(self) -> str:
        return ".".join(quoted(part) for part in self._named.name.split(".", 1))

    def _make(self) -> None:
        spec = self._named
        check_writable(spec.schema, spec)
        schema = spec.name.split(".", 1)[0]
        with reported_by_spark("create", spec), self._bridge.acting() as session:
            if not session.catalog.databaseExists(quoted(schema)):
                session.sql(f"CREATE DATABASE IF NOT EXISTS {quoted(schema)}")
            session.sql(creation_sql(self._quoted_name(), spec))


def creation_sql(name: str, spec: TableSpec, *, spark_alone: bool = False) -> str:
    """The statement that makes the table of a spec; it does nothing where the table is there.

    `spark_alone`: nobody else writes its checkpoints, and it forgets no producer.
    """
    columns = columns_sql(spec.schema)
    chosen = properties_of(spec)
    if spark_alone:
        del chosen[_RETENTION]
        chosen[CHECKPOINT_INTERVAL] = _CHECKPOINT_INTERVAL
    properties = ", ".join(f"'{key}' = '{value}'" for key, value in chosen.items())
    partitions = ", ".join(map(quoted, spec.partition_columns))
    parted = f" PARTITIONED BY ({partitions})" if partitions else ""
    return f"CREATE TABLE IF NOT EXISTS {name} ({columns}) USING delta{parted} TBLPROPERTIES ({properties})"


def columns_sql(schema: pa.Schema) -> str:
    """Columns as Spark's statements name them."""
    from pyspark.sql.pandas.types import from_arrow_schema

    kinds = from_arrow_schema(schema, prefer_timestamp_ntz=False)
    return ", ".join(f"{quoted(field.name)} {field.dataType.simpleString()}" for field in kinds)


def plain_path(location: str) -> str:
    """A location as Spark tells it, as the rest of the library takes it: local ones without their scheme."""
    if location.startswith("file:"):
        return "/" + location.removeprefix("file:").lstrip("/")
    return location
