"""A commit of files that pyarrow wrote to a table that Spark writes, too.

Receives: commit groups.
Produces: receipts, or the outcomes of `sfwriter.storage.engine`.
Guarantees: everything that the group brings, its new columns too, is one version. An answer that was lost is looked
    up in the log.
Never does: run for two threads at once (its owner locks); change the caller's session.

An append to a table on a local disk is an entry of our own, made under Delta's lock (`sfwriter.storage.delta_lock`).
Everything else is Delta's own transaction in the JVM: each producer's number is compared after it has begun and read
inside it, so that Delta itself refuses the commit where a rival with the same producer lands first.

The log is looked at through delta-rs, which takes a millisecond where Spark's own look takes a second, and which never
commits here: on a local disk two programs that commit can both believe that they won a version.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import Schema

from sfwriter.exceptions import WriterError, WriterTableError
from sfwriter.storage.adding import missing_columns
from sfwriter.storage.commit_notes import CommitNote
from sfwriter.storage.delta_checksum import DeltaChecksums
from sfwriter.storage.delta_commit import Committer
from sfwriter.storage.delta_lock import DeltaLock, usable_lock
from sfwriter.storage.delta_read import arrow_schema
from sfwriter.storage.engine import CommitConflict, CommitUnknown
from sfwriter.storage.faults import is_foreign
from sfwriter.storage.log_entry import add_of, txn_of
from sfwriter.storage.place import fsync_path, local_root
from sfwriter.storage.road import Road, road_of
from sfwriter.storage.spark_faults import first_words_of, is_answer, is_rival, reported_by_spark, spark_error
from sfwriter.storage.spark_write import written_by_spark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import AddColumns, CommitGroup, CommitReceipt, StagedFile, TableSpec
    from sfwriter.storage.log_memory import LogMemory
    from sfwriter.storage.short_log import ShortLog
    from sfwriter.storage.spark_bridge import SparkBridge

_log = logging.getLogger(__name__)

_TRIES_TO_BEGIN = 3
"""A transaction begins at the newest version; the look through delta-rs must not be behind it."""

_OPTIONS_OF_WRITE = 5
"""Of `DeltaOperations.Write` behind mode, partitioning, predicate and user metadata; all are left out."""


_WITH_HOOKS = ("delta.compatibility.symlinkFormatManifest.enabled", "delta.universalFormat.enabledFormats")
"""Properties for which Delta does more behind each of its commits."""

_SKIPPING = "delta.dataSkippingStatsColumns"
_UNSKIPPABLE = ("boolean", "binary")


class SparkCommitter(Committer):
    """Commits to one table through Spark. For one thread at a time."""

    def __init__(
        self,
        spec: TableSpec,
        identity: TableIdentity,
        disk: LogDisk,
        memory: LogMemory,
        clock: Clock,
        *,
        bridge: SparkBridge,
    ) -> None:
        """Touches nothing yet."""
        super().__init__(spec, identity, disk, memory, clock)
        self._bridge = bridge
        self._checksums = DeltaChecksums(spec)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """One Delta transaction, ending as `sfwriter.storage.engine` says."""
        self._bridge.check()
        with self._bridge.acting():
            return super().commit(group)

    def _appendable(self, group: CommitGroup) -> tuple[DeltaTable, int] | None:
        table, version = self._newest()
        if group.replaces or _is_for_delta(table) or self._lacking(table, group):
            return None
        # Where the chain of checksums is broken, a commit of Delta begins it anew.
        return None if self._delta_lock is None or not self._checksums.has(version) else (table, version)

    @cached_property
    def _delta_lock(self) -> DeltaLock | None:
        """Under which entries of our own are made; None where every commit is Delta's."""
        with reported_by_spark("commit to", self._spec):
            lock = usable_lock(self._spec, self._bridge)
            return lock if lock is not None and self._disk.has_links() else None

    def _published(self, hidden: Path, version: int, group: CommitGroup) -> bool:
        published = super()._published(hidden, version, group)
        if published:
            self._checksums.follow(version, [file for staged in group.staged for file in staged.files])
        return published

    def _publish(self, hidden: Path, version: int) -> bool:
        if self._delta_lock is None:
            raise RuntimeError("without Delta's lock no entry may be made beside Spark")
        return self._disk.publish(hidden, version, self._delta_lock.link)

    def _through_delta(self, group: CommitGroup) -> CommitReceipt:
        with reported_by_spark("commit to", self._spec):
            table, transaction = self._begun(self._fresh())
        road = road_of(table)
        new = self._lacking(table, group)
        self._compare(table, group)
        files = self._files(table, group, partitioned=road.in_place)
        actions = self._prepared(transaction, group, files, new, road)
        before = table.version()
        try:
            note = CommitNote.of(group).to_text()
            version = int(transaction.commit(actions, self._operation(note, replaces=group.replaces)))
        except BaseException as error:
            if not is_foreign(error):
                raise
            version = self._looked_up(group, before, error)
        receipt = self._landed(group, version)
        if not road.in_place:
            self._checkpoints.wait()  # Spark's own, which is not to run beside its transactions
            self._tidied(files)
        return receipt

    def add_columns(self, action: AddColumns) -> Mapping[str, Any]:
        """Carry the action out, in a transaction of its own. See `sfwriter.storage.engine`."""
        self._bridge.check()
        with self._bridge.acting(), reported_by_spark("add columns to", self._spec):
            table, transaction = self._begun(self._fresh())
            new = missing_columns(arrow_schema(table), action)
            version = int(table.version())
            if new and not action.dry_run:
                self._add_columns(transaction, new)
                kind = getattr(self._bridge.jvm.org.apache.spark.sql.delta, "DeltaOperations$ManualUpdate$")
                version = int(transaction.commit(self._bridge.sequence([]), getattr(kind, "MODULE$")))
                self._disk.settle(version)
        return {"refused": [], "added": [column.name for column in new], "version": version}

    # ------------------------------------------------------------ steps

    def _begun(self, table: DeltaTable) -> tuple[DeltaTable, Any]:
        """A transaction, and a look at the table that is not behind it: together they compare and swap."""
        jvm, own = self._bridge.jvm, self._bridge.session._jsparkSession  # noqa: SLF001  there is no public way
        root = local_root(self._spec.location)
        location = self._spec.location if root is None else str(root)
        for _ in range(_TRIES_TO_BEGIN):
            log = self._bridge.log_of(location)
            transaction, begun_at = self._begun_of(log, table.version())
            if transaction.metadata().id() != table.metadata().id:
                # Delta keeps what it knows of a path, also when another table is there now.
                path = jvm.org.apache.hadoop.fs.Path(location)
                jvm.org.apache.spark.sql.delta.DeltaLog.invalidateCache(own, path)
            elif begun_at <= table.version():
                # A commit waits seconds for it, by default every tenth; `_checkpoint` writes them beside commits.
                transaction.postCommitHooks().subtractOne(self._bridge.names.checkpoint_hook)
                return table, transaction
            table = self._fresh()
        raise CommitConflict(f"{self._spec.name} is not the same in two looks at it.")

    def _begun_of(self, log: Any, newest: int) -> tuple[Any, int]:
        """A transaction, and the version that it begins at.

        By itself Delta lists the whole log for it, 10 ms and more. It need not where what it knows is the newest; but
        behind a checkpoint it shall, or else what it knows would for ever begin at an older one.
        """
        if not self._checkpoints.has_new():
            names = self._bridge.names
            known = log.unsafeVolatileSnapshot()
            if int(known.version()) == newest:
                return log.startTransaction(names.none, names.some(known)), newest
        transaction = log.startTransaction()
        return transaction, int(transaction.readVersion())

    def _prepared(
        self,
        transaction: Any,
        group: CommitGroup,
        files: Sequence[StagedFile],
        new: Sequence[pa.Field],
        road: Road,
    ) -> Any:
        """Everything that the transaction is to commit. Nothing is visible, and what fails here has not landed."""
        with reported_by_spark("commit to", self._spec):
            if new:
                self._add_columns(transaction, new)
            read = transaction.readTxn()
            for advance in group.advances:
                read.append(advance.producer_id)
            removed = self._removed(transaction) if group.replaces else []
            txns = [self._action({"txn": txn_of(advance, self._now_ms())}) for advance in group.advances]
        if road.in_place:
            added = [self._action({"add": add_of(file)}) for file in files]
        else:
            with reported_by_spark("write to", self._spec):
                added = written_by_spark(self._bridge, self._spec, transaction, group)
            self._flush(added)
        with reported_by_spark("commit to", self._spec):
            return self._bridge.sequence([*removed, *added, *txns])

    def _removed(self, transaction: Any) -> list[Any]:
        """What takes every file of the snapshot away. Delta then refuses the commit where a rival adds one."""
        live = transaction.filterFiles()
        return [live.apply(position).remove() for position in range(live.size())]

    def _add_columns(self, transaction: Any, new: Sequence[pa.Field]) -> None:
        found = json.loads(transaction.metadata().json())
        metadata = found.get("metaData", found)
        schema = json.loads(metadata["schemaString"])
        added = json.loads(Schema.from_arrow(pa.schema(list(new))).to_json())["fields"]
        _drop_unskippable(metadata, schema["fields"])
        schema["fields"] += [{**field, "nullable": True} for field in added]
        metadata["schemaString"] = json.dumps(schema)
        transaction.updateMetadata(self._action({"metaData": metadata}), False)

    def _action(self, content: Mapping[str, Any]) -> Any:
        return self._bridge.names.action_from_json(json.dumps(content))

    def _operation(self, note: str, *, replaces: bool) -> Any:
        names = self._bridge.names
        mode, none = names.overwrite_mode if replaces else names.append_mode, names.none
        return names.write(mode, none, none, names.some(note), *[none] * _OPTIONS_OF_WRITE)

    def _flush(self, added: Sequence[Any]) -> None:
        """Spark does not flush what it writes."""
        root = local_root(self._spec.location)
        if root is None or not self._spec.fsync:
            return
        with reported_by_spark("flush", self._spec):
            paths = [root / unquote(str(action.path())) for action in added if hasattr(action, "path")]
            for path in (*paths, *{path.parent for path in paths}):
                fsync_path(path)

    def _tidied(self, files: Sequence[StagedFile]) -> None:
        """The rows are in files of Spark's now; those that they were read from are nobody's."""
        for file in files:
            with suppress(OSError):  # VACUUM takes what stays
                self._place.remove(file.path)

    def _outcome(self, error: BaseException) -> Exception:
        if is_rival(error):
            return CommitConflict(first_words_of(error))
        if isinstance(error, WriterError):
            return error
        if local_root(self._spec.location) is None:
            return CommitUnknown(first_words_of(error))
        if not is_answer(error):
            return self._died(error) if self._bridge.has_died() else CommitUnknown(first_words_of(error))
        # The JVM has answered, so the call has ended: what is not in a local log now will not come.
        return spark_error(error, "commit to", self._spec)

    def _died(self, error: BaseException) -> WriterError:
        """What is not in a local log after the JVM's end will not come."""
        return WriterTableError(
            f"The JVM of the SparkSession ended during a commit to {self._spec.name}, and before that had landed:"
            f" nothing of this call was written ({first_words_of(error)}).",
            context={"table": self._spec.name, "location": self._spec.location},
            suggestions=["Make a new session, and a new LogWriter with it."],
            code="session_lost",
        )

    def _checkpoint(self, table: DeltaTable, short: ShortLog | None = None) -> None:
        """delta-rs writes it in 30 ms where Spark takes seconds; of tables that only Spark writes, Spark does."""
        if road_of(table).in_place:
            super()._checkpoint(table, short)
            return
        self._bridge.check()
        with self._bridge.acting(), reported_by_spark("checkpoint", self._spec):
            _, transaction = self._begun(table)
            transaction.deltaLog().checkpoint()
        self._disk.settle_checkpoint(table.version())


def _is_for_delta(table: DeltaTable) -> bool:
    """Whether a commit to this table is more than an entry of files and producers."""
    properties = table.metadata().configuration
    return not road_of(table).in_place or any(properties.get(name, "false") != "false" for name in _WITH_HOOKS)


def _drop_unskippable(metadata: dict[str, Any], fields: Sequence[Mapping[str, Any]]) -> None:
    """Take columns out of `delta.dataSkippingStatsColumns` for which Spark refuses any change of the columns.

    Tables that the embedded engine of earlier versions made name them.
    """
    configuration = metadata.get("configuration") or {}
    named = configuration.get(_SKIPPING)
    if not named:
        return
    kinds = {field["name"]: field["type"] for field in fields}
    kept = [
        name
        for name in named.split(",")
        if kinds.get(name) not in _UNSKIPPABLE and name not in metadata.get("partitionColumns", ())
    ]
    metadata["configuration"] = {**configuration, _SKIPPING: ",".join(kept)}
