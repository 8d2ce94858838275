"""Maintenance of a Delta table through delta-rs: joining, sorting and deleting files, and looking back.

Receives: actions of `sfwriter.storage.engine`.
Produces: their figures.
Guarantees: one action at a time for each table, across processes of one machine too; each works on a fresh
    handle; what it wrote is flushed to the disk; rows, producers' numbers and marks are the same afterwards.
    Writers go on meanwhile: appends and rewritings do not conflict.
Never does: decide whether an action pays.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import ColumnProperties, PostCommitHookProperties, WriterProperties
from deltalake.exceptions import CommitFailedError

from sfwriter.arrays import values_of
from sfwriter.exceptions import WriterTableError
from sfwriter.storage.delta_commit import RETENTION_SHARE, retention_of_ms
from sfwriter.storage.delta_log import open_table
from sfwriter.storage.delta_read import arrow_schema
from sfwriter.storage.engine import Compact, History, Partition, Sort, Survey, Vacuum, Version
from sfwriter.storage.faults import reported, reported_by_delta, unknown_action
from sfwriter.storage.log_tail import entry_path
from sfwriter.storage.maintenance_lock import MaintenanceLock
from sfwriter.storage.place import LOG_FOLDER, local_root, place_of
from sfwriter.storage.rewriting import RivalInTheWay, land
from sfwriter.storage.short_log import short_log
from sfwriter.storage.staging import ROW_GROUP_ROWS, parquet_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import TableSpec

_CONFLICT_TRIES = 3
_SORT_SPILL_BYTES = 256 << 20
_HOUR_MS = 3_600_000.0
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_CODEC = re.compile(r"\.(snappy|zstd|lz4|lz4_raw|gzip|gz|none|uncompressed)\.parquet$")
_SAME_CODEC = {"lz4_raw": "lz4", "gz": "gzip", "uncompressed": "none"}
_CODECS: dict[str, Any] = {
    "snappy": "SNAPPY", "zstd": "ZSTD", "lz4": "LZ4_RAW", "gzip": "GZIP", "none": "UNCOMPRESSED",
}  # fmt: skip
_LEFTOVER = ".*.tmp"
"""How `sfwriter.storage.place` names a file that is being written, and `sfwriter.storage.short_log` a folder."""


class DeltaMaintainer:
    """Carries out actions on one table. Thread-safe: they take turns."""

    def __init__(self, spec: TableSpec, identity: TableIdentity, disk: LogDisk, clock: Clock) -> None:
        """Touch nothing yet."""
        self._spec = spec
        self._identity = identity
        self._disk = disk
        self._clock = clock
        self._root = local_root(spec.location)
        self._place = place_of(spec)
        self._lock = MaintenanceLock(spec, clock)

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out an action.

        Raises:
            WriterTableError: there is no table; others maintain it for longer than `LOCK_PATIENCE_S`; or it failed,
                and then the table is as it was before the action.
        """
        if isinstance(action, History):
            return self._history(self._opened(), action.limit)
        if isinstance(action, Survey):
            return self._survey(self._opened(), action.ranges_of)
        if not isinstance(action, (Compact, Sort, Vacuum)):
            raise unknown_action(action, self._spec)
        if self._root is not None:
            self._opened()
        with self._lock.held():
            return self._vacuum(action) if isinstance(action, Vacuum) else self._rewritten(action)

    # ------------------------------------------------------------ looking

    def _opened(self, spec: TableSpec | None = None) -> DeltaTable:
        table = open_table(spec or self._spec, with_files=True)
        self._identity.check(table)
        if table is None:
            raise WriterTableError(
                f"There is no table {self._spec.name} at {self._spec.location}.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Write to it first, or correct the name."],
                code="table_missing",
            )
        return table

    def _survey(self, table: DeltaTable, ranges_of: str | None) -> Mapping[str, Any]:
        with reported_by_delta("read the log of", self._spec):
            files = _files_of(table)
            metadata = table.metadata()
            retention_ms = retention_of_ms(metadata.configuration.get("delta.deletedFileRetentionDuration"))
        names = list(metadata.partition_columns)
        found: dict[str, list[dict[str, Any]]] = {}
        keys = _keys(names)
        wanted = {"path", "size_bytes", "num_records", f"min.{ranges_of}", f"max.{ranges_of}", *keys}
        columns = {name: values_of(files.column(name)) for name in files.column_names if name in wanted}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            partition = "/".join(f"{name}={row[key]}" for name, key in zip(names, keys, strict=True))
            found.setdefault(partition, []).append(row)
        return {
            "partitions": {name: _partition(names, group, ranges_of) for name, group in found.items()},
            "retention_hours": retention_ms / _HOUR_MS,
            "safe_retention_hours": RETENTION_SHARE * retention_ms / _HOUR_MS,
            "log_entries": self._log_entries(),
            "without_statistics": sum(row.get("num_records") is None for group in found.values() for row in group),
        }

    def _log_entries(self) -> int | None:
        if self._root is None:
            return None
        with os.scandir(self._root / LOG_FOLDER) as found:
            return sum(entry.name.endswith(".json") and entry.name[:-5].isdigit() for entry in found)

    def _history(self, table: DeltaTable, limit: int) -> Mapping[str, Any]:
        with reported_by_delta("read the history of", self._spec):
            entries = table.history(limit)
            known = _totals(table)
        versions = []
        for entry in entries:
            number = int(entry["version"])
            operation = str(entry.get("operation", "unknown"))
            versions.append(Version(number, entry.get("timestamp"), operation, *known, _notes(entry)))
            known = self._totals_before(number, known)
        return {"versions": versions}

    def _totals_before(self, version: int, known: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
        """Rows and bytes of the version before, from what this one's log entry added and removed."""
        if version == 0:
            return None, None
        try:
            with self._place.open(entry_path(version)) as source:
                actions = [json.loads(line) for line in source.read().splitlines() if line.strip()]
        except OSError:
            return self._totals_at(version - 1)
        added = [action["add"] for action in actions if "add" in action]
        removed = [action["remove"] for action in actions if "remove" in action]
        counts = [
            json.loads(add.get("stats") or "{}").get("numRecords") for add in added if add.get("dataChange", True)
        ]
        sizes = [remove.get("size") for remove in removed]
        rows, size = known
        if rows is None or size is None or None in counts or None in sizes or any(
            remove.get("dataChange", True) for remove in removed
        ):  # fmt: skip
            return self._totals_at(version - 1)
        return rows - sum(counts), size - sum(add["size"] for add in added) + sum(sizes)

    def _totals_at(self, version: int) -> tuple[int | None, int | None]:
        """Rows and bytes of a version; None where its log entries are tidied away."""
        try:
            table = self._opened()
            table.load_as_version(version)
            return _totals(table)
        except Exception:  # noqa: BLE001  delta-rs raises many kinds for entries that are gone
            return None, None

    # ------------------------------------------------------------ changing

    def _rewritten(self, action: Compact | Sort) -> Mapping[str, Any]:
        for attempt in range(_CONFLICT_TRIES):
            with reported_by_delta("optimize", self._spec):
                try:
                    return self._rewrite(action)
                except (RivalInTheWay, CommitFailedError) as error:
                    if attempt + 1 < _CONFLICT_TRIES:
                        continue  # another writer was in the way, and nothing landed: look again
                    raise WriterTableError(
                        f"{self._spec.name} could not be optimized: others changed it meanwhile, {attempt + 1} times.",
                        context={"table": self._spec.name},
                        suggestions=[
                            "Try again when fewer writers are at it: those that replace or delete rows are in the way."
                        ],
                        code="conflict",
                        retriable=True,
                    ) from error
        raise AssertionError("the last try raises")

    def _rewrite(self, action: Compact | Sort) -> Mapping[str, Any]:
        """Raises what tells of rivals, too: then nothing landed."""
        if self._root is None:
            return _figures(self._optimized(self._opened(), action), self._settled())
        with short_log(self._spec) as short:
            table = self._opened(short.spec)
            read = int(table.version())
            short.show_files(unquote(path) for path in _files_of(table).column("path").to_pylist())
            figures = self._optimized(table, action)
            version = read if table.version() == read else land(short, read, self._identity, self._disk)
        with reported("flush", self._spec):
            self._disk.settle(version)
        return _figures(figures, version)

    def _optimized(self, table: DeltaTable, action: Compact | Sort) -> Mapping[str, Any]:
        common: dict[str, Any] = {
            "partition_filters": list(action.filters) or None,
            "target_size": action.target_bytes,
            "max_concurrent_tasks": 1,
            "writer_properties": _properties(self._spec, arrow_schema(table)),
            "post_commithook_properties": _NO_HOOKS,
        }
        if isinstance(action, Compact):
            return table.optimize.compact(**common)
        return table.optimize.z_order(list(action.columns), max_spill_size=_SORT_SPILL_BYTES, **common)

    def _vacuum(self, action: Vacuum) -> Mapping[str, Any]:
        table = self._opened()
        deleted = self._delete_files(table, action)
        if action.full and self._root is not None:
            deleted = [*deleted, *self._swept(self._root, action)]
        version = table.version() if action.dry_run else self._settled()
        return {"files_deleted": sorted(deleted), "version": version}

    def _delete_files(self, table: DeltaTable, action: Vacuum) -> list[str]:
        with reported_by_delta("vacuum", self._spec):
            return table.vacuum(
                # Whole hours, never fewer than asked for.
                retention_hours=-int(-action.retention_hours // 1),
                dry_run=action.dry_run,
                enforce_retention_duration=False,  # the plan has compared it with what commits may still name
                full=action.full,
                post_commithook_properties=_NO_HOOKS,
            )

    def _swept(self, root: Path, action: Vacuum) -> list[str]:
        """What processes that were killed left under hidden names."""
        oldest = self._clock.now().timestamp() - action.retention_hours * 3600
        swept = []
        with reported("vacuum", self._spec):
            for path in _leftovers(root, oldest):
                swept.append(str(path.relative_to(root)))
                if action.dry_run:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        return swept

    def _settled(self) -> int:
        """The newest version, on the disk with all that it needs."""
        table = self._opened()
        with reported("flush", self._spec):
            self._disk.settle(table.version())
        return int(table.version())


def _properties(spec: TableSpec, schema: pa.Schema) -> WriterProperties:
    """What staging writes with: delta-rs's own choice makes files a third larger."""
    options = parquet_options(spec, schema)
    names = options["use_dictionary"] or []
    columns = {name: ColumnProperties(dictionary_enabled=True) for name in names}
    for name, encoding in (options["column_encoding"] or {}).items():
        columns[name] = ColumnProperties(dictionary_enabled=False, encoding=encoding)
    return WriterProperties(
        compression=_CODECS[spec.compression],
        compression_level=options["compression_level"],
        max_row_group_size=ROW_GROUP_ROWS,
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties=columns,
    )


def _figures(found: Mapping[str, Any], version: int) -> Mapping[str, Any]:
    return {
        "files_added": int(found["numFilesAdded"]),
        "files_removed": int(found["numFilesRemoved"]),
        "bytes_rewritten": int(json.loads(found["filesRemoved"])["totalSize"]),
        "version": version,
    }


def _leftovers(root: Path, oldest: float) -> Iterator[Path]:
    """Files and folders with hidden names that were last changed before `oldest`, in epoch seconds.

    Folders of other processes may vanish meanwhile, and links in them lead to the table itself.
    """
    for folder, folders, files in os.walk(root):
        hidden = fnmatch.filter([*folders, *files], _LEFTOVER)
        folders[:] = [name for name in folders if name not in hidden]
        for name in hidden:
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    yield path


def _keys(names: list[str]) -> list[str]:
    """How the list of files names partition columns."""
    return [f"partition.{name}" for name in names]


def _files_of(table: DeltaTable) -> pa.Table:
    # Not `pa.table(…)`, which imports pandas to see whether this is a frame.
    return pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()


def _totals(table: DeltaTable) -> tuple[int | None, int | None]:
    """Rows and bytes of all live files; rows are None where a file has no count."""
    files = _files_of(table)
    counts = files.column("num_records").to_pylist() if "num_records" in files.column_names else [None] * len(files)
    return None if None in counts else sum(counts), sum(files.column("size_bytes").to_pylist())


def _partition(names: list[str], files: list[dict[str, Any]], ranges_of: str | None) -> Partition:
    values = [files[0][key] for key in _keys(names)]
    codecs = [found[1] for file in files if (found := _CODEC.search(file["path"]))]
    return Partition(
        # An empty value is how a filter of delta-rs says null.
        filters=tuple(
            (name, "=", "" if value is None else str(value)) for name, value in zip(names, values, strict=True)
        ),
        sizes=tuple(file["size_bytes"] for file in files),
        rows=sum(file.get("num_records") or 0 for file in files),
        codecs=frozenset(_SAME_CODEC.get(codec, codec) for codec in codecs),
        ranges=() if ranges_of is None else tuple(_range(file, ranges_of) for file in files),
    )


def _range(file: dict[str, Any], column: str) -> tuple[Any, Any] | None:
    lowest, highest = file.get(f"min.{column}"), file.get(f"max.{column}")
    return None if lowest is None or highest is None else (lowest, highest)


def _notes(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the writer of a version noted with it."""
    text = entry.get("userMetadata")
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {"text": text}
    return found if isinstance(found, dict) else {"text": text}
