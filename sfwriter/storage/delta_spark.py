"""The Spark engine: Delta Lake through a caller's SparkSession.

Receives: batches to stage, groups to commit, questions about one table.
Produces: data files, log entries, receipts, Arrow.
Guarantees: what the embedded engine guarantees, with commits of the JVM's own Delta or under its lock, and with its
    rewritings and rows; so tables that only Spark can write are written, too. Looks at the log need no JVM: they
    outlive the session.
Never does: change or stop the caller's session.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.clock import SystemClock
from sfwriter.spark import check as check_session
from sfwriter.storage.delta_features import unreadable_features
from sfwriter.storage.delta_read import arrow_schema, stats_of
from sfwriter.storage.delta_rs import DeltaRsTable
from sfwriter.storage.engine import TableStats
from sfwriter.storage.place import local_root
from sfwriter.storage.road import PLAIN, Road, road_of
from sfwriter.storage.spark_bridge import SparkBridge
from sfwriter.storage.spark_catalog import CatalogTable
from sfwriter.storage.spark_commit import SparkCommitter
from sfwriter.storage.spark_faults import reported_by_spark
from sfwriter.storage.spark_maintain import SparkMaintainer
from sfwriter.storage.spark_only import SparkOnlyTable
from sfwriter.storage.spark_rules import SparkColumnRules
from sfwriter.storage.spark_scan import by_path, quoted, scan_rows
from sfwriter.storage.staging import stage_batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_commit import Committer
    from sfwriter.storage.delta_maintain import DeltaMaintainer
    from sfwriter.storage.engine import AddColumns, BatchToStage, StagedBatch, Table, TableSpec

_PLAIN_PATH = re.compile(r"[A-Za-z0-9._=/-]+")

_FEW_FILES = 256
"""So many are named to Spark one by one; of more, Delta is asked for those that a predicate leaves."""

_log = logging.getLogger(__name__)
_DEFAULT_CLOCK = SystemClock()

NAME = "delta-spark"


class DeltaSparkEngine:
    """Opens tables through a SparkSession."""

    name = NAME

    def __init__(self, spark: Any, clock: Clock = _DEFAULT_CLOCK, *, by_name: bool = False) -> None:
        """Look whether the session will do.

        Args:
            spark: the session, classic or Connect.
            clock: for stamps, for the age of staged files, and for producers that expire.
            by_name: tables are those of the session's catalog, and a spec's location counts for nothing.

        Raises:
            WriterConfigurationError: it is no session, was stopped, or lacks what Delta needs.
        """
        check_session(spark)
        self._bridge = SparkBridge(spark)
        self._clock = clock
        self._by_name = by_name

    @property
    def column_rules(self) -> SparkColumnRules:
        """Works out rules that are Spark columns."""
        return SparkColumnRules(self._bridge)

    def open(self, spec: TableSpec) -> Table:
        """A handle on the table that the spec names. Touches nothing yet."""
        return CatalogTable(spec, self._bridge, self._at) if self._by_name else self._at(spec)

    def _at(self, spec: TableSpec) -> Table:
        reason = self._only_spark(spec)
        if reason is None:
            return DeltaSparkTable(spec, self._bridge, self._clock)
        address = ".".join(map(quoted, spec.name.split(".", 1))) if self._by_name else by_path(spec.location)
        return SparkOnlyTable(spec, self._bridge, address, reason, clock=self._clock)

    def _only_spark(self, spec: TableSpec) -> str | None:
        """Why no file of the table can be opened beside Spark; None where it can."""
        if self._bridge.connect:
            return "Spark Connect has no JVM to commit through, and its files are the server's"
        if local_root(spec.location) is None and not spec.storage_options:
            return "no storage_options are given, so that only Spark can reach the object store"
        return None


class SparkLogTable(DeltaRsTable):
    """What is known of a table of this engine without Spark: its log, and the way that rows take into it."""

    def __init__(self, spec: TableSpec, clock: Clock = _DEFAULT_CLOCK) -> None:
        """Touches nothing yet."""
        self._road = PLAIN
        super().__init__(spec, clock)

    @property
    def road(self) -> Road:
        """The way of rows as it was at the last look or commit."""
        return self._road

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """As the embedded engine does; where Spark writes the rows once more, its writer divides them."""
        return stage_batches(self.staging_spec, batches, self._clock)

    @property
    def staging_spec(self) -> TableSpec:
        """By which rows may be staged elsewhere: where Spark writes them once more, its writer divides them."""
        return self._spec if self._road.in_place else replace(self._spec, partition_columns=())

    def _check_writable(self, table: DeltaTable) -> None:
        self._know_road(table)

    def _stats_of(self, table: DeltaTable) -> TableStats:
        road = self._know_road(table)
        found = self._counted_by_spark(table) if unreadable_features(table) else stats_of(table, self._spec)
        return replace(found, road=road.name, road_reason=road.reason)

    def _counted_by_spark(self, table: DeltaTable) -> TableStats:
        """Of a table whose list of files does not tell how many rows it has."""
        raise NotImplementedError

    def _know_road(self, table: DeltaTable) -> Road:
        return self._take_road(road_of(table))

    def _take_road(self, found: Road) -> Road:
        if found != self._road:
            self._road = found
            _log.info("%s: rows go the way %s: %s", self._spec.name, found.name, found.reason)
        return found


class DeltaSparkTable(SparkLogTable):
    """One table. Every call but `commit`, `ensure` and `run` may go on beside a commit."""

    def __init__(self, spec: TableSpec, bridge: SparkBridge, clock: Clock = _DEFAULT_CLOCK) -> None:
        """Touches nothing yet."""
        self._bridge = bridge
        super().__init__(spec, clock)

    def _make_committer(self) -> Committer:
        return SparkCommitter(self._spec, self._identity, self._disk, self._memory, self._clock, bridge=self._bridge)

    def _make_maintainer(self) -> DeltaMaintainer:
        return SparkMaintainer(self._spec, self._identity, self._disk, self._clock, bridge=self._bridge)

    def _add_columns(self, action: AddColumns) -> Mapping[str, Any]:
        committer = self._committer
        if not isinstance(committer, SparkCommitter):
            raise TypeError(f"{type(committer).__name__} commits for a table of the Spark engine")
        return committer.add_columns(action)

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """Stream the visible rows through Spark SQL, in no particular order, in the table's types."""
        table = self._readable()
        self._bridge.check()
        files = _plain_files(table)
        return scan_rows(self._bridge, self._spec, arrow_schema(table), columns, predicate, files=files)

    def files(self, times: Sequence[str], since: datetime) -> None:  # noqa: ARG002  the signature of `HasFiles`
        """None: a session's rows are read through the session."""
        return

    def _counted_by_spark(self, table: DeltaTable) -> TableStats:
        self._bridge.check()
        newest = table.history(1)
        with reported_by_spark("count the rows of", self._spec), self._bridge.acting() as session:
            where = by_path(self._spec.location)
            detail = session.sql(f"DESCRIBE DETAIL {where}").collect()[0]
            rows = session.sql(f"SELECT count(*) FROM {where}").collect()[0][0]  # noqa: S608  a quoted path
        return TableStats(
            exists=True,
            version=table.version(),
            rows=int(rows),
            files=int(detail["numFiles"]),
            size_bytes=int(detail["sizeInBytes"]),
            schema=arrow_schema(table),
            partition_columns=tuple(table.metadata().partition_columns),
            last_modified_ms=int(newest[0]["timestamp"]) if newest and "timestamp" in newest[0] else None,
            properties=dict(table.metadata().configuration),
        )


def _plain_files(table: DeltaTable) -> list[str] | None:
    """The live files, where they are few and their list alone tells the rows; else None."""
    if unreadable_features(table):
        return None
    paths = pa.RecordBatchReader.from_stream(table.get_add_actions()).read_all().column("path").to_pylist()
    plain = len(paths) <= _FEW_FILES and all(_PLAIN_PATH.fullmatch(path) for path in paths)
    return paths if plain else None
