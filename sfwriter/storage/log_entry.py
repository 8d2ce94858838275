"""The text of a Delta log entry: what a commit says, as the protocol words it.

Receives: commit groups, staged files; entries of anybody.
Produces: actions as plain values, the lines of an entry that appends, and what an entry says of producers.
Guarantees: pure; any reader of Delta tables understands them, and delta-rs reads the note back as it was.
Never does: touch a disk.

The names are those of https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Actions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from sfwriter.storage.commit_notes import FIELD, CommitNote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sfwriter.storage.engine import Advance, CommitGroup, StagedFile

FOREVER_MS = 253_402_300_799_000
"""When the number of a producer that never expires was "last updated": at the end of the year 9999. Spark's checkpoints
leave out the numbers without a time where `delta.setTransactionRetentionDuration` is set (delta-rs keeps them)."""

_ENGINE = "sfwriter"

_OF_FILES_AND_PRODUCERS = {"commitInfo", "add", "remove", "cdc", "txn"}


def append_entry(
    group: CommitGroup, files: Iterable[StagedFile], partition_columns: Sequence[str], now_ms: int
) -> bytes:
    """The entry that adds the group's files and moves its producers: one action a line.

    `now_ms`: the commit's time in epoch milliseconds.
    """
    actions: list[dict[str, Any]] = [
        {"commitInfo": _commit_info(group, partition_columns, now_ms)},
        *({"txn": txn_of(advance, now_ms)} for advance in group.advances),
        *({"add": add_of(file)} for file in files),
    ]
    return b"".join(orjson.dumps(action, option=orjson.OPT_APPEND_NEWLINE) for action in actions)


@dataclass(frozen=True, slots=True)
class Moves:
    """What an entry of files and producers says of producers.

    Attributes:
        sequences: producer to the number that it has moved on to.
        note: what is remembered of their batches; None where the entry is not ours.
    """

    sequences: Mapping[str, int]
    note: CommitNote | None


def moves_of(entry: bytes) -> Moves | None:
    """How an entry moves producers; None where it may change more of the table than files and producers.

    Raises:
        ValueError: it is none, or a part of one.
    """
    actions = [orjson.loads(line) for line in entry.splitlines() if line.strip()]
    if not actions or not all(isinstance(action, dict) for action in actions):
        raise ValueError("no entry of a Delta log")
    if any(action.keys() - _OF_FILES_AND_PRODUCERS for action in actions):
        return None
    told = next((action["commitInfo"] for action in actions if isinstance(action.get("commitInfo"), dict)), None)
    return Moves(
        {str(action["txn"]["appId"]): int(action["txn"]["version"]) for action in actions if "txn" in action},
        None if told is None else CommitNote.from_entry(told),
    )


def _commit_info(group: CommitGroup, partition_columns: Sequence[str], now_ms: int) -> dict[str, Any]:
    partitioned = orjson.dumps(list(partition_columns)).decode()
    return {
        "timestamp": now_ms,
        "operation": "WRITE",
        # Values are texts, as Spark's own entries have them.
        "operationParameters": {"mode": "Append", "partitionBy": partitioned},
        "isBlindAppend": True,  # Spark's transactions then see no conflict in it
        "engineInfo": _ENGINE,
        FIELD: CommitNote.of(group).to_text(),
    }


def txn_of(advance: Advance, now_ms: int) -> dict[str, Any]:
    """The `txn` action of a producer's step."""
    updated_ms = now_ms if advance.expires else FOREVER_MS
    return {"appId": advance.producer_id, "version": advance.upto, "lastUpdated": updated_ms}


def add_of(file: StagedFile) -> dict[str, Any]:
    """The `add` action of a staged file."""
    return {
        "path": quote(file.path, safe="/=-_.~"),
        "partitionValues": dict(file.partition_values),
        "size": file.size_bytes,
        "modificationTime": file.modified_ms,
        "dataChange": True,
        "stats": file.statistics,
    }
