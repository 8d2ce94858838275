"""A commit: compare, make one log entry, and be certain how it ended.

Receives: commit groups.
Produces: receipts, or the outcomes of `sfwriter.storage.engine`.
Guarantees: each producer's numbers are compared and swapped, however long the committer was frozen in
    between; a receipt means visible and on the disk; an exception is looked into before anything is said of
    the outcome.
Never does: run for two threads at once (its owner locks).

An append to a table on a local disk is an entry of our own: whoever makes the entry after the version that was
compared has swapped. What it takes the place of is delta-rs, which lists the whole log three times for a commit.
Everything else goes through delta-rs.
"""

from __future__ import annotations

import logging
import math
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from sfwriter.exceptions import WriterError, WriterTableError
from sfwriter.storage.checkpoints import Checkpoints
from sfwriter.storage.columns import columns_to_add
from sfwriter.storage.commit_notes import FIELD, CommitNote
from sfwriter.storage.delta_features import check_writable_table
from sfwriter.storage.delta_log import DeltaHandle
from sfwriter.storage.delta_read import arrow_schema
from sfwriter.storage.engine import CommitConflict, CommitReceipt, CommitUnknown, StagedFilesLost
from sfwriter.storage.faults import first_words, is_foreign, log_error, reported, reported_by_delta
from sfwriter.storage.log_entry import FOREVER_MS, append_entry
from sfwriter.storage.place import local_root, place_of
from sfwriter.storage.staging import staged_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import CommitGroup, StagedFile, TableSpec
    from sfwriter.storage.log_memory import LogMemory
    from sfwriter.storage.short_log import ShortLog

_log = logging.getLogger(__name__)

_Found = TypeVar("_Found")

_LOOKS = 15
_RIVALS_MET = 100
"""As often the table may change, and somebody else be faster at one look at it, before the caller is told."""

RETENTION_SHARE = 0.5
"""A staged file older than this share of the deleted-file retention is not committed: VACUUM may be at it."""

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""A checkpoint that fails as a hook raises out of a commit that has landed."""

_REFUSALS = re.compile(
    r"Concurrent transaction failed|a concurrent transaction|Metadata changed|Protocol changed"
    r"|existing table version|Failed to commit transaction: \d+"
)
"""What delta-rs says when rivals were in the way. Its `CommitFailedError` alone is no proof: it is raised
for a lost answer of the object store, too."""


class Committer:
    """Commits to one table. For one thread at a time."""

    def __init__(
        self, spec: TableSpec, identity: TableIdentity, disk: LogDisk, memory: LogMemory, clock: Clock
    ) -> None:
        """Touches nothing yet."""
        self._spec = spec
        self._clock = clock
        self._place = place_of(spec)
        self._disk = disk
        self._handle = DeltaHandle(spec, identity, clock)
        self.memory = memory
        self._checkpoints = Checkpoints(spec, identity, clock, self._checkpoint)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """One Delta transaction, ending as `sfwriter.storage.engine` says."""
        for _ in range(_LOOKS):
            found = self._appendable(group)
            if found is None:
                return self._through_delta(group)
            table, version = found
            if not self._knows(version, group):
                table = self._fresh()
                if table.version() != version:
                    continue
                self._compare(table, group)
            landed = self._appended(table, version, group)
            if landed is not None:
                return self._landed(group, landed)
        raise CommitConflict(f"Others were faster in committing to {self._spec.name}, again and again.")

    def _appendable(self, group: CommitGroup) -> tuple[DeltaTable, int] | None:
        """The newest version, and a table that an entry of our own can follow; None where Delta is to make it."""
        if group.replaces or not self._disk.makes_entries:
            return None
        return self._evolved(group)

    def _appended(self, table: DeltaTable, version: int, group: CommitGroup) -> int | None:
        """The version that the group has become; None where the table is to be looked at anew."""
        entry = append_entry(group, self._files(table, group), table.metadata().partition_columns, self._now_ms())
        seen = table.version()
        with self._hidden(entry) as hidden:
            for _ in range(_RIVALS_MET):
                if self._published(hidden, version + 1, group):
                    return version + 1
                # Somebody else's entry: nothing of this one has to change, unless the table has, or its producers.
                newest, version = self._newest()
                if newest is not table or newest.version() != seen or not self._knows(version, group):
                    return None
        return None

    @contextmanager
    def _hidden(self, entry: bytes) -> Iterator[Path]:
        with ExitStack() as stack:
            with reported("commit to", self._spec):
                hidden = stack.enter_context(self._disk.prepared(entry))
            yield hidden

    def _published(self, hidden: Path, version: int, group: CommitGroup) -> bool:
        try:
            published = self._publish(hidden, version)
        except BaseException as error:
            if not is_foreign(error):
                raise
            return self._looked_up(group, version - 1, error) == version
        if published and not self._handle.appended(version):
            self._handle.forget()
            self.memory.forget_sequences()
            raise CommitUnknown(f"Version {version} was made by a look at the log that had become old.")
        return published

    def _publish(self, hidden: Path, version: int) -> bool:
        """See `LogDisk.publish`."""
        return self._disk.publish(hidden, version)

    def _through_delta(self, group: CommitGroup) -> CommitReceipt:
        table, version = self._evolved(group)
        if table.version() != version:
            self._handle.forget()
            table, _ = self._evolved(group)
        self._compare(table, group)
        actions = [_add_action(file) for file in self._files(table, group)]
        before = table.version()
        try:
            table.create_write_transaction(
                actions,
                # Overwriting removes every file of the snapshot; what a rival adds meanwhile stays beside it.
                "overwrite" if group.replaces else "append",
                table.schema(),
                partition_by=list(table.metadata().partition_columns),
                commit_properties=self._properties(group),
                post_commithook_properties=_NO_HOOKS,
            )
            version = self._version_of(table, group, before)
        except BaseException as error:
            if not is_foreign(error):
                raise
            version = self._looked_up(group, before, error)
        return self._landed(group, version)

    def _landed(self, group: CommitGroup, version: int) -> CommitReceipt:
        """What is to be done once the group is visible."""
        try:
            self._disk.settle(version)
        except OSError as error:
            raise CommitUnknown(f"Visible as version {version}, and perhaps not on the disk: {error}") from error
        self.memory.landed(group, version)
        self._checkpoints.landed(version)
        return CommitReceipt(version)

    def checkpoint(self) -> int:
        """Write a checkpoint and drop expired entries; the version that it holds."""
        self._checkpoints.wait()
        with reported_by_delta("checkpoint", self._spec):
            self._handle.forget()
            table = self._fresh()
            self._checkpoint(table)
            self._handle.forget()
        version = int(table.version())
        self._checkpoints.begin_anew(version)
        return version

    # ------------------------------------------------------------ steps

    def _newest(self) -> tuple[DeltaTable, int]:
        return self._there(self._handle.newest(self.memory.passed))

    def _fresh(self) -> DeltaTable:
        return self._there(self._handle.fresh())

    def _there(self, found: _Found | None) -> _Found:
        if found is None:
            raise WriterTableError(
                f"There is no table {self._spec.name} at {self._spec.location} to commit to.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Open the table with a writer first: it makes it."],
                code="table_missing",
            )
        return found

    def _evolved(self, group: CommitGroup) -> tuple[DeltaTable, int]:
        """The newest version, and the table with every column of the group's files (see `DeltaHandle.newest`)."""
        table, version = self._newest()
        check_writable_table(table, self._spec)
        if not self._lacking(table, group):
            return table, version
        table = self._fresh()
        new = self._lacking(table, group)
        if not new:
            return table, table.version()
        try:
            fields = Schema.from_arrow(pa.schema(new)).fields
            table.alter.add_columns([Field(field.name, field.type, nullable=True) for field in fields],
                                    post_commithook_properties=_NO_HOOKS)  # fmt: skip
        except BaseException as error:
            if not is_foreign(error):
                raise
            # Nothing of the group itself has landed, whatever became of the columns.
            self._handle.forget()
            if _is_refusal(error):
                raise CommitConflict(f"Columns could not be added: {first_words(error)}") from error
            raise log_error(error, "add columns to", self._spec) from error
        self._handle.forget()
        table = self._fresh()
        if self._lacking(table, group):
            raise CommitConflict("Columns that were just added are gone again.")
        return table, table.version()

    def _lacking(self, table: DeltaTable, group: CommitGroup) -> list[pa.Field]:
        """Columns that staged files have and the table has not."""
        schemas = {place: staged_schema(staged) for place, staged in enumerate(group.staged) if staged.files}
        return columns_to_add(arrow_schema(table), schemas, self._spec) if schemas else []

    def _knows(self, version: int, group: CommitGroup) -> bool:
        """Whether every producer of the group is known to stand at this version where the plan has it."""
        return all(self.memory.agrees(version, advance.producer_id, advance.after) for advance in group.advances)

    def _compare(self, table: DeltaTable, group: CommitGroup) -> None:
        """delta-rs does not compare versions of a producer; it only notices rivals since the snapshot."""
        version = table.version()
        for advance in group.advances:
            if self.memory.agrees(version, advance.producer_id, advance.after):
                continue
            found = table.transaction_version(advance.producer_id)
            if found != advance.after:
                raise CommitConflict(
                    f"Producer {advance.producer_id!r} stands at {found} in version {version},"
                    f" and the plan is built on {advance.after}."
                )
            self.memory.found(version, {advance.producer_id: found})

    def _files(self, table: DeltaTable, group: CommitGroup, *, partitioned: bool = True) -> list[StagedFile]:
        """The group's files, each of which is there and as it was staged.

        `partitioned`: they must lie as the table is partitioned.
        """
        partitions = set(table.metadata().partition_columns)
        oldest_ms = self._oldest_ms(table)
        lost = []
        files = []
        for position, staged in enumerate(group.staged):
            for file in staged.files:
                if partitioned and set(file.partition_values) != partitions:
                    clash = partition_clash(self._spec, sorted(file.partition_values), sorted(partitions))
                    clash.context["positions"] = (position,)
                    raise clash
                with reported("look at staged files of", self._spec):
                    facts = self._place.facts(file.path)
                if facts is None or facts.size_bytes != file.size_bytes or facts.modified_ms < oldest_ms:
                    lost.append(position)
                    break
                files.append(file)
        if lost:
            raise StagedFilesLost(f"Staged files of {self._spec.name} are missing, changed or too old.", tuple(lost))
        return files

    def _oldest_ms(self, table: DeltaTable) -> float:
        retention_ms = retention_of_ms(table.metadata().configuration.get("delta.deletedFileRetentionDuration"))
        return self._now_ms() - retention_ms * RETENTION_SHARE

    def _properties(self, group: CommitGroup) -> CommitProperties:
        now_ms = self._now_ms()
        return CommitProperties(
            custom_metadata={FIELD: CommitNote.of(group).to_text()},
            app_transactions=[
                Transaction(advance.producer_id, advance.upto, now_ms if advance.expires else FOREVER_MS)
                for advance in group.advances
            ],
        )

    def _version_of(self, table: DeltaTable, group: CommitGroup, before: int) -> int:
        """The version that the group's commit, which has just landed, became. Brings the handle up to date."""
        table.update_incremental()
        if table.version() == before + 1:
            return before + 1
        version = _find(table, group, before)
        if version is None:
            raise LookupError(f"Group {group.group_id} is not among the versions after {before}")
        return version

    def _looked_up(self, group: CommitGroup, before: int, error: BaseException) -> int:
        """The version where the commit landed for all that it raised; else the outcome, as an exception."""
        self._handle.forget()
        self.memory.forget_sequences()
        try:
            version = _find(self._fresh(), group, before)
        except BaseException as second:
            if not is_foreign(second):
                raise
            raise CommitUnknown(f"{first_words(error)}; and then: {first_words(second)}") from error
        if version is not None:
            _log.warning("Commit %s of %s landed, and raised all the same: %s", version, self._spec.name, error)
            return version
        raise self._outcome(error) from error

    def _outcome(self, error: BaseException) -> Exception:
        """What is to be said of a commit that raised this and was not found in the log."""
        if _is_refusal(error):
            # delta-rs met a rival's commit at every version that it tried, so nothing of this one is under way.
            return CommitConflict(first_words(error))
        if isinstance(error, WriterError):
            return error
        if local_root(self._spec.location) is None or not isinstance(error, Exception):
            return CommitUnknown(first_words(error))
        # On a local disk the calls that failed have ended: what is not there now will not come.
        return log_error(error, "commit to", self._spec)

    def _checkpoint(self, table: DeltaTable, short: ShortLog | None = None) -> None:
        table.create_checkpoint()
        if short is not None:
            short.move_checkpoint(table.version())
            return
        # On the disk before any entry that it replaces is dropped.
        self._disk.settle_checkpoint(table.version())
        table.cleanup_metadata()

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _find(table: DeltaTable, group: CommitGroup, before: int) -> int | None:
    """The version after `before` whose entry has the group's id."""
    newer = table.version() - before
    for entry in table.history(newer) if newer > 0 else []:
        note = CommitNote.from_entry(entry)
        if note is not None and note.group_id == group.group_id:
            return int(entry["version"])
    return None


def _add_action(file: StagedFile) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size_bytes,
        partition_values=dict(file.partition_values),
        modification_time=file.modified_ms,
        data_change=True,
        stats=file.statistics,
    )


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, CommitFailedError) and _REFUSALS.search(str(error)) is not None


def partition_clash(spec: TableSpec, given: list[str], found: list[str]) -> WriterError:
    """The error for a table that is partitioned by other columns than it was to be."""
    return WriterTableError(
        f"{spec.name} is partitioned by {', '.join(found) or 'nothing'}, and was to be written partitioned by"
        f" {', '.join(given) or 'nothing'}.",
        context={"table": spec.name, "location": spec.location, "expected": found, "given": given},
        suggestions=["Set `partition_columns` to the table's own, or leave it empty."],
        code="partition_clash",
    )


_INTERVAL = re.compile(r"^interval\s+(\d+(?:\.\d+)?)\s+(\w+?)s?$", re.IGNORECASE)
_UNIT_MS = {"millisecond": 1, "second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000,
            "week": 604_800_000}  # fmt: skip
_WEEK_MS = 604_800_000


def retention_of_ms(text: str | None) -> float:
    """A Delta interval in milliseconds; one week, Delta's default, where it is not given."""
    found = _INTERVAL.match(text.strip()) if text else None
    if found is None or found[2].lower() not in _UNIT_MS:
        return _WEEK_MS
    return float(found[1]) * _UNIT_MS[found[2].lower()] or math.inf
