"""The seam between what decides and what stores: eight calls in three roles.

Receives: encoded batches, commit groups, plans of maintenance.
Produces: staged files, receipts, watermarks, Arrow.
Guarantees: everything that an engine needs to know of exactly-once is in the values of this module.
Never does: decide. Order, retries and look-ups are the flow's.

A commit ends in one of four ways: a `CommitReceipt`; `CommitConflict` (nothing landed, somebody else
changed something that it was planned on); `StagedFilesLost` (nothing landed, named files are gone);
`CommitUnknown` (it may have landed, or may land later). Any `WriterError` says that nothing landed
and nothing will; its `retriable` tells whether the same commit may succeed later, and
`context["positions"]`, where it is there, which of the group's staged batches are at fault.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from sfwriter.batch import Token


@dataclass(frozen=True, slots=True)
class TableSpec:
    """What a table is to be, and how its files are written.

    Attributes:
        name: `schema.table`, as results and errors name it.
        location: folder or object-store URL of the table.
        schema: the columns at creation. A table that exists may have more; a column that a staged
            file has and the table lacks is added (nullable) by the commit that brings it.
        partition_columns: Delta partitioning at creation.
        stamps: column to what staging fills it with: `time` (when it was staged, UTC), `producer`
            (the batch's producer id), `batch` (`<producer>:<sequence>`).
        statistics_columns: columns whose minimum and maximum go into the log.
        dictionary_columns: columns that are dictionary encoded.
        compression: Parquet codec: snappy, zstd, lz4, gzip or none.
        max_file_bytes: a file that reaches it is closed and the next one begun.
        spread_files: how many files the rows of one staging job are spread over, partition by partition,
            where there are at least `spread_from_rows` of them.
        spread_from_rows: see `spread_files`.
        fsync: whether staged files, log entries and their folders are fsynced (local disk only).
        storage_options: for the object store; never shown.
        producer_retention_days: how long the table remembers producers that expire.
    """

    name: str
    location: str
    schema: pa.Schema
    partition_columns: tuple[str, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    statistics_columns: tuple[str, ...] = ()
    dictionary_columns: tuple[str, ...] = ()
    compression: str = "snappy"
    max_file_bytes: int = 128 << 20
    spread_files: int = 1
    spread_from_rows: int = 0
    fsync: bool = True
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    producer_retention_days: float = 7.0


@dataclass(frozen=True, slots=True)
class BatchToStage:
    """One batch's rows for one table."""

    token: Token
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One Parquet file that nobody can see yet.

    Attributes:
        path: relative to the table's location, raw (not URL-encoded), `/` between partition folders.
        size_bytes: of the file.
        rows: in the file.
        statistics: Delta's `stats` JSON.
        partition_values: column to value as Delta writes it.
        modified_ms: epoch milliseconds of the file's modification time.
    """

    path: str
    size_bytes: int
    rows: int
    statistics: str
    partition_values: Mapping[str, str | None]
    modified_ms: int


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """The files of one staging job, and the schema that they have (IPC-serialised, so it travels cheaply)."""

    files: tuple[StagedFile, ...]
    schema_ipc: bytes

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the table's log remembers of one committed batch: enough to tell it from any other.

    Attributes:
        digest: of the content.
        stamp: of the call that gave it; two calls never share one.
    """

    digest: str
    stamp: str


@dataclass(frozen=True, slots=True)
class Advance:
    """One producer's step in a commit.

    Attributes:
        producer_id: whose.
        after: highest committed number that the plan is built on (None: none). The engine compares it
            with the table and answers `CommitConflict` where it differs.
        upto: highest committed number afterwards; stored as the producer's Delta `txn`.
        marks: number to mark, for the newest batches of the step; stored with the commit.
        expires: whether the table may forget the producer after its retention.
    """

    producer_id: str
    after: int | None
    upto: int
    marks: Mapping[int, Mark]
    expires: bool = False


@dataclass(frozen=True, slots=True)
class CommitGroup:
    """What one Delta transaction makes visible.

    Attributes:
        group_id: unique; stored with the commit.
        staged: files to add, possibly none (numbers are then committed without files).
        advances: one for each producer, none twice.
        replaces: whether the files are all that the table holds afterwards; numbers and marks stay.
    """

    group_id: str
    staged: tuple[StagedBatch, ...]
    advances: tuple[Advance, ...]
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    """A commit that landed: the version that holds it."""

    version: int


@dataclass(frozen=True, slots=True)
class Watermark:
    """What a fresh look at the table says of one producer.

    Attributes:
        sequence: highest committed number, None where there is none.
        version: of the table that was looked at, -1 where there is no table.
        marks: number to (mark, version) of its newest batches, as far as the log remembers.
    """

    sequence: int | None
    version: int
    marks: Mapping[int, tuple[Mark, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableStats:
    """What the log tells of a table without reading a data file. `exists` False: all else is empty.

    `road` and `road_reason`: the way that rows take into the table, and why, as `get_table_info` tells them.
    """

    exists: bool
    version: int = -1
    rows: int = 0
    files: int = 0
    size_bytes: int = 0
    schema: pa.Schema | None = None
    partition_columns: tuple[str, ...] = ()
    last_modified_ms: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    road: str = "in_place"
    road_reason: str = "staged files are committed as they are"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An action of `TableMaintainer.run`: write a checkpoint, and drop log entries that have expired.

    Figures: `version`.
    """


@dataclass(frozen=True, slots=True)
class Survey:
    """An action that changes nothing: how the files lie.

    Figures: `partitions` (a text that names the partition, to `Partition`), `retention_hours` (of deleted
    files), `safe_retention_hours` (no file younger than that may be deleted: a commit may still name it),
    `log_entries`, `without_statistics` (files).

    Attributes:
        ranges_of: the column whose range in each file is asked for; None for none.
    """

    ranges_of: str | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """The live files of one partition.

    Attributes:
        filters: what selects it, as delta-rs takes it; empty for a table without partitions.
        sizes: bytes of each file, in the log's order.
        rows: in all of them.
        codecs: compression of the files, each once, in lower case.
        ranges: lowest and highest value of `Survey.ranges_of` in each file, None where the log does not tell;
            empty where it was not asked for.
    """

    filters: tuple[tuple[str, str, str], ...]
    sizes: tuple[int, ...]
    rows: int
    codecs: frozenset[str]
    ranges: tuple[tuple[Any, Any] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Compact:
    """An action: join the small files of one partition.

    Figures: `files_added`, `files_removed`, `bytes_rewritten`, `version`.
    """

    filters: tuple[tuple[str, str, str], ...]
    target_bytes: int


@dataclass(frozen=True, slots=True)
class Sort:
    """An action: rewrite one partition, Z-ordered by columns. Figures as `Compact`."""

    filters: tuple[tuple[str, str, str], ...]
    columns: tuple[str, ...]
    target_bytes: int


@dataclass(frozen=True, slots=True)
class Vacuum:
    """An action: delete files that no version within the retention needs.

    Figures: `files_deleted` (their paths), `version`.

    Attributes:
        retention_hours: files that were removed, or are unknown, since less than that stay.
        full: look through the folder for files that the log does not know, and for what killed writers left.
        dry_run: only say what would go.
    """

    retention_hours: float
    full: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """An action that changes nothing: the newest versions. Figures: `versions`, a list of `Version`."""

    limit: int


@dataclass(frozen=True, slots=True)
class AddColumns:
    """An action: add the columns that the table lacks, nullable. Nothing else of it changes.

    Figures: `refused` (what the table uses and this engine cannot write to; nothing is added then), `added`
    (names, also of a dry run), `version`. It creates no table.

    Attributes:
        columns: that the table is to have. Those that it has are left as they are, whatever their types.
        dry_run: only say what would be added.
    """

    columns: pa.Schema
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a table; None where the log no longer tells."""

    version: int
    timestamp_ms: int | None
    operation: str
    rows: int | None
    size_bytes: int | None
    user_metadata: Mapping[str, Any]


class CommitConflict(Exception):  # noqa: N818  an outcome, not a failure
    """Nothing landed: the table moved under the plan. Read the watermarks and plan anew."""


class CommitUnknown(Exception):  # noqa: N818  an outcome, not a failure
    """Nobody knows whether it landed, or whether it still will. Read the watermarks, then decide."""


class StagedFilesLost(Exception):  # noqa: N818  an outcome, not a failure
    """Nothing landed: files of these staged batches (positions in the group) are missing, changed or too old."""

    def __init__(self, message: str, positions: tuple[int, ...] = ()) -> None:
        """Name the staged batches by their positions in `CommitGroup.staged`."""
        super().__init__(message, positions)
        self.positions = positions


class TableWriter(Protocol):
    """Four calls that bring rows in."""

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """Write the batches as Parquet files that nobody can see, durable as the spec asks.

        Needs no open table, so it runs anywhere that reaches the location; the table must have been
        made by some `ensure()` before, a missing one is a `WriterTableError`. Columns of the spec that
        the batches lack become null, additional ones are kept. Raises `WriterError`; nothing is left
        behind that could be seen.
        """

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """Make the group visible in one transaction, or end as this module's docstring says.

        Compares every `Advance.after` with a fresh snapshot first. Durable when it returns. One
        thread at a time for each table object.
        """

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """Look at the table afresh, once, and say where each of these producers stands.

        Where there is no table, and was none earlier in this object's life, all stand at None, -1. May
        be called while another thread is in `commit`. What it tells is as durable as a receipt.
        """

    def discard(self, staged: StagedBatch) -> None:
        """Delete files that were staged and that no commit has ever named. Missing ones are no error."""


class TableReader(Protocol):
    """Two calls that look."""

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """Stream the visible rows as Arrow; `predicate` is SQL of the engine's own making, never a user's text."""

    def stats(self) -> TableStats:
        """What the log says of the table, afresh."""


class TableMaintainer(Protocol):
    """Two calls that care for a table."""

    def ensure(self) -> TableStats:
        """Create the table of the spec where there is none, and say what is there.

        A spec without partition columns takes those of a table that exists, and each column takes the
        narrower type that the table keeps it in (`sfwriter.storage.columns.is_narrower`): `spec` names them
        from then on. So whoever stages elsewhere takes the table's `spec` after this call.

        Raises:
            WriterSchemaError: a column of the spec has another type in the table.
            WriterTableError: it cannot be created, opened or written; or it was there earlier in this
                object's life and is gone (it is never made anew then).
        """

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out one action of a maintenance plan and return its figures."""


class Table(TableWriter, TableReader, TableMaintainer, Protocol):
    """One table behind one engine: all eight calls."""

    @property
    def spec(self) -> TableSpec:
        """What it was opened with; after `ensure()` with the table's own partition columns and narrower types."""


class Engine(Protocol):
    """Opens tables."""

    @property
    def name(self) -> str:
        """As `get_table_info` names it, e.g. `delta-rs`."""

    def open(self, spec: TableSpec) -> Table:
        """A handle on the table that the spec names. Touches nothing yet."""
