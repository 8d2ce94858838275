"""The part of a local Delta log that its newest version is read from: one checkpoint, and the entries behind it.

Receives: a table's place.
Produces: names in its log's folder.
Guarantees: the cost does not grow with the log, as long as somebody commits to it.
Never does: read an entry, or change anything.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.clock import SystemClock
from sfwriter.storage.place import LOG_FOLDER, LocalPlace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sfwriter.storage.place import Place

LAST_CHECKPOINT = "_last_checkpoint"
_DIGITS = 20
_TRUSTED_S = 600.0
"""An entry that is younger is the newest one where the next is missing. Of older ones it may have been tidied away,
with more behind it, if whoever wrote a checkpoint of those died before he said so."""


@dataclass(frozen=True, slots=True)
class LogTail:
    """What is needed to read the newest version.

    Attributes:
        checkpoints: names of the newest checkpoint's file, and of newer ones that are kept in other ways; empty where
            there is none.
        entries: names of the entries behind it, oldest first, the newest checkpoint's own one before them.
        hinted: whether `_last_checkpoint` told of it.
    """

    checkpoints: list[str]
    entries: list[str]
    hinted: bool


def entry_name(version: int) -> str:
    """An entry's name in the log's folder."""
    return f"{version:0{_DIGITS}}.json"


def entry_path(version: int) -> str:
    """A log entry's path under the table's location."""
    return f"{LOG_FOLDER}/{entry_name(version)}"


def checkpoint_name(version: int) -> str:
    """The name of a checkpoint that is one file, as delta-rs writes them."""
    return f"{version:0{_DIGITS}}.checkpoint.parquet"


def checksum_path(version: int) -> str:
    """The path of Delta's checksum of a version under the table's location."""
    return f"{LOG_FOLDER}/{version:0{_DIGITS}}.crc"


def last_checkpoint(place: Place) -> int | None:
    """The version of the newest checkpoint, as the log says; None where it does not."""
    try:
        with place.open(f"{LOG_FOLDER}/{LAST_CHECKPOINT}") as file:
            return int(json.loads(file.read())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tail_of(root: Path) -> LogTail:
    """That of the table in this folder. Raises OSError where it has no log."""
    log = root / LOG_FOLDER
    hinted = last_checkpoint(LocalPlace(root, fsync=False))
    if hinted is not None and (log / checkpoint_name(hinted)).exists():
        entries = _entries_from(log, hinted)
        if entries and _age_s(log / entries[-1]) < _TRUSTED_S:
            return LogTail([checkpoint_name(hinted)], entries, hinted=True)
    return _listed(log)


def missing_behind(root: Path, version: int) -> int | None:
    """The version that a log lacks though there are newer ones; None for a whole log. All up to `version` are there.

    A look at all names: some 0.4 µs each. Raises OSError.
    """
    log = root / LOG_FOLDER
    # What is listed now was made after all before it: a walk that begins later meets them, whoever commits meanwhile.
    newest = max(_versions(log), default=version)
    while version < newest and (log / entry_name(version + 1)).exists():
        version += 1
    return version + 1 if version < newest else None


def _versions(log: Path) -> Iterator[int]:
    names = os.listdir(log)  # noqa: PTH208  half a million paths are not wanted
    return (int(name[:_DIGITS]) for name in names if name[_DIGITS:] == ".json" and name[:_DIGITS].isdigit())


def _listed(log: Path) -> LogTail:
    """By a look at all names: some 0.7 µs each."""
    with os.scandir(log) as found:
        names = [entry.name for entry in found if entry.name[:_DIGITS].isdigit()]
    checkpoints = {name: int(name[:_DIGITS]) for name in names if ".checkpoint." in name}
    versions = [int(name[:_DIGITS]) for name in names if name[_DIGITS:] == ".json"]
    whole = [version for name, version in checkpoints.items() if name == checkpoint_name(version)]
    first = max(whole) if whole else min(versions, default=0)
    # A listing of a folder that grows may show an entry and not the one before it.
    return LogTail(
        [name for name, version in checkpoints.items() if version >= first], _entries_from(log, first), hinted=False
    )


def _entries_from(log: Path, version: int) -> list[str]:
    """The entries from this version on. Its own may be tidied away: a checkpoint stands for it."""
    names = [entry_name(version)] if (log / entry_name(version)).exists() else []
    while (log / entry_name(version + 1)).exists():
        version += 1
        names.append(entry_name(version))
    return names


def _age_s(path: Path) -> float:
    try:
        return SystemClock().now().timestamp() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
