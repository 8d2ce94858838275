"""A Delta table that nothing but Spark can reach: Spark Connect, and places that only the session knows.

Receives: batches, commit groups, questions about one table.
Produces: the same as the other engines.
Guarantees: each producer's numbers are Delta's own `txn` of the commit that brings its rows (`txnAppId`,
    `txnVersion`); a version that Delta passes over in silence is noticed, because every commit is looked up.
Never does: open a file. Rows wait for their commit in this process's memory, inside the budget of the writer.

A commit carries one producer here, so a group of several is several versions, one after the other; what was
already there when one of them failed is found by the look that follows an unknown outcome.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.clock import SystemClock
from sfwriter.dictionaries import plain_table
from sfwriter.exceptions import WriterTableError
from sfwriter.storage.columns import adopted_schema, check_writable, columns_to_add, with_null_marks
from sfwriter.storage.commit_notes import CommitNote
from sfwriter.storage.delta_commit import partition_clash
from sfwriter.storage.engine import (
    CommitConflict,
    CommitReceipt,
    CommitUnknown,
    StagedBatch,
    StagedFile,
    StagedFilesLost,
    TableStats,
    Watermark,
)
from sfwriter.storage.spark_catalog import creation_sql
from sfwriter.storage.spark_faults import first_words_of, is_rival, reported_by_spark, spark_error
from sfwriter.storage.spark_look import SparkLook
from sfwriter.storage.spark_scan import scan_rows
from sfwriter.storage.spark_tend import tend
from sfwriter.storage.staging import joined_rows, partitioned, staged_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import Advance, BatchToStage, CommitGroup, TableSpec
    from sfwriter.storage.spark_bridge import SparkBridge

_DEFAULT_CLOCK = SystemClock()


class SparkOnlyTable:
    """One table. `commit`, `ensure` and `run` take turns; looks may go on beside them."""

    def __init__(
        self, spec: TableSpec, bridge: SparkBridge, address: str, reason: str, clock: Clock = _DEFAULT_CLOCK
    ) -> None:
        """Touches nothing yet.

        Args:
            spec: of the table.
            bridge: to Spark.
            address: the table as Spark SQL takes it: a quoted name, or a path.
            reason: why nothing but Spark can be used.
            clock: for stamps.
        """
        self._spec = spec
        self._bridge = bridge
        self._address = address
        self._reason = reason
        self._clock = clock
        self._look = SparkLook(spec, bridge, address)
        self._waiting: dict[str, pa.Table] = {}
        self._commit_lock = threading.Lock()

    @property
    def spec(self) -> TableSpec:
        """What it was opened with; after `ensure()` with the table's own partition columns."""
        return self._spec

    # ------------------------------------------------------------ writer

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """Keep the rows, each producer's apart."""
        self._existing()
        whole = joined_rows(self._spec, batches, self._clock)
        check_writable(whole.schema, self._spec)
        for _ in partitioned(self._spec, whole):
            pass  # what no folder can be named by is refused here
        files = []
        now_ms = int(self._clock.now().timestamp() * 1000)
        for producer in dict.fromkeys(batch.token.producer_id for batch in batches):
            own = [batch for batch in batches if batch.token.producer_id == producer]
            rows = plain_table(joined_rows(self._spec, own, self._clock))
            if rows.num_rows:
                path = f"{uuid.uuid4()}/{producer}"
                self._waiting[path] = rows
                statistics = f'{{"numRecords":{rows.num_rows}}}'
                files.append(StagedFile(path, rows.nbytes, rows.num_rows, statistics, {}, now_ms))
        return StagedBatch(tuple(files), with_null_marks(whole).serialize().to_pybytes())

    def discard(self, staged: StagedBatch) -> None:
        """Forget the rows."""
        for file in staged.files:
            self._waiting.pop(file.path, None)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """A commit for each producer, ending as `sfwriter.storage.engine` says."""
        with self._commit_lock:
            before = self._existing()
            lost = tuple(
                place
                for place, staged in enumerate(group.staged)
                if any(
                    file.path not in self._waiting or self._waiting[file.path].nbytes != file.size_bytes
                    for file in staged.files
                )
            )
            if lost:
                raise StagedFilesLost(f"Rows for {self._spec.name} are not in this process.", lost)
            schemas = {place: staged_schema(staged) for place, staged in enumerate(group.staged) if staged.files}
            new = columns_to_add(before.schema or pa.schema([]), schemas, self._spec)
            self._compare(group)
            version = before.version
            landed = 0
            try:
                for advance in group.advances:
                    version = self._commit_one(group, advance, bool(new), first=not landed)
                    landed += 1
            except Exception as error:
                if landed:
                    raise CommitUnknown(f"A part of the group landed, and then: {error}") from error
                raise
            for staged in group.staged:
                self.discard(staged)
            return CommitReceipt(version)

    def _compare(self, group: CommitGroup) -> None:
        found = self._look.sequences([advance.producer_id for advance in group.advances])
        for advance in group.advances:
            if found[advance.producer_id] != advance.after:
                raise CommitConflict(
                    f"Producer {advance.producer_id!r} stands at {found[advance.producer_id]},"
                    f" and the plan is built on {advance.after}."
                )

    def _commit_one(self, group: CommitGroup, advance: Advance, evolving: bool, *, first: bool) -> int:
        own = [
            self._waiting[file.path]
            for staged in group.staged
            for file in staged.files
            if file.path.split("/", 1)[1] == advance.producer_id
        ]
        rows = pa.concat_tables(own, promote_options="default") if own else self._spec.schema.empty_table()
        single = replace(group, advances=(advance,))
        note = CommitNote.of(single)
        try:
            with reported_by_spark("commit to", self._spec), self._bridge.acting() as session:
                size = max(1, -(-rows.nbytes // self._spec.max_file_bytes))
                writer = (
                    _frame(session, rows).coalesce(size).write.format("delta")
                    .mode("overwrite" if group.replaces and first else "append")
                    .option("txnAppId", advance.producer_id)
                    .option("txnVersion", str(advance.upto))
                    .option("userMetadata", note.to_text())
                )  # fmt: skip
                if evolving:
                    writer = writer.option("mergeSchema", "true")
                self._look.save(writer)
        except Exception as error:
            version = self._looked_up(note, error)
            if version is not None:
                return version
            cause = error.__cause__ or error
            if is_rival(cause):
                raise CommitConflict(first_words_of(cause)) from error
            if "gone" in str(getattr(error, "code", "")) or "lost" in str(getattr(error, "code", "")):
                raise CommitUnknown(first_words_of(cause)) from error
            raise
        version = self._look.version_of(note)
        if version is None:
            # Delta passes over a version that is not above the one it has, and says nothing.
            raise CommitConflict(f"Producer {advance.producer_id!r} went on elsewhere.")
        return version

    def _looked_up(self, note: CommitNote, error: Exception) -> int | None:
        try:
            return self._look.version_of(note)
        except Exception as second:  # noqa: BLE001  Spark, gRPC and this library raise anything at all here
            raise CommitUnknown(f"{first_words_of(error)}; and then: {first_words_of(second)}") from error

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """One fresh look at the log for all of them."""
        found = self._look.stats(counted=False)
        if not found.exists:
            return {producer: Watermark(None, -1) for producer in producers}
        sequences = self._look.sequences(producers)
        marks = self._look.marks(producers)
        return {producer: Watermark(sequences[producer], found.version, marks[producer]) for producer in producers}

    # ------------------------------------------------------------ reader

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """Stream the visible rows through Spark SQL, in no particular order."""
        schema = self._existing().schema or pa.schema([])
        return scan_rows(self._bridge, self._spec, schema, columns, predicate, opened=self._look.frame)

    def stats(self) -> TableStats:
        """From Spark's own answers."""
        found = self._look.stats()
        return replace(found, road="dataframe", road_reason=self._reason)

    def _existing(self) -> TableStats:
        found = self._look.stats(counted=False)
        if not found.exists:
            raise WriterTableError(
                f"There is no table {self._spec.name} at {self._address}.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Open it with a writer first: it makes it."],
                code="table_missing",
            )
        return found

    # ------------------------------------------------------------ maintainer

    def ensure(self) -> TableStats:
        """Create the table where there is none, and say what is there."""
        with self._commit_lock:
            if not self._look.stats(counted=False).exists:
                check_writable(self._spec.schema, self._spec)
                with reported_by_spark("create", self._spec), self._bridge.acting() as session:
                    # Delta stamps each number with a time here, so that retention would forget named producers, too.
                    session.sql(creation_sql(self._address, self._spec, spark_alone=True))
            found = self.stats()
            if self._spec.partition_columns and self._spec.partition_columns != found.partition_columns:
                raise partition_clash(self._spec, list(self._spec.partition_columns), list(found.partition_columns))
            self._spec = replace(self._spec, schema=adopted_schema(self._spec.schema, found.schema or ()))
            filled = pa.schema([field.with_nullable(False) for field in self._spec.schema])
            columns_to_add(found.schema or filled, {0: filled}, self._spec)
            self._spec = replace(self._spec, partition_columns=found.partition_columns)
            return found

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out an action of `sfwriter.storage.engine` through Spark SQL."""
        found = self._existing()
        try:
            return tend(action, found, spec=self._spec, bridge=self._bridge, address=self._address, look=self._look)
        except WriterTableError:
            raise
        except Exception as error:
            raise spark_error(error, "maintain", self._spec) from error


def _frame(session: Any, rows: pa.Table) -> Any:
    if rows.num_rows:
        return session.createDataFrame(rows)
    from pyspark.sql.pandas.types import from_arrow_schema

    # Spark Connect takes no columns from a table without rows.
    return session.createDataFrame([], from_arrow_schema(rows.schema, prefer_timestamp_ntz=False))
