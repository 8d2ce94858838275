"""Puts a rewriting of files into the log of a local table that others commit to meanwhile.

Receives: a rewriting that delta-rs has committed to a short log.
Produces: the version that it has become in the table.
Guarantees: its files are on the disk before its entry; no writer is made to wait, and however fast others append, it
    gets through. Where others removed one of the same files, or changed the table itself, nothing of it is left.
Never does: decide what is rewritten.

delta-rs lists the whole log before each of its fifteen tries, and writers that commit every few milliseconds outrun it:
a table that is never compacted is the one that needs it most.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import orjson

from sfwriter.storage.delta_log import open_table
from sfwriter.storage.log_entry import moves_of
from sfwriter.storage.log_tail import entry_path

if TYPE_CHECKING:
    from pathlib import Path

    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.short_log import ShortLog


class RivalInTheWay(Exception):  # noqa: N818  an outcome, not a failure
    """Others changed the files that were to be rewritten; nothing landed."""


@dataclass(frozen=True, slots=True)
class _Files:
    """What an entry removes and adds: paths under the table's folder."""

    removed: set[str]
    added: list[str]


def land(short: ShortLog, read: int, identity: TableIdentity, disk: LogDisk) -> int:
    """Make the entry after version `read` of a short log one of the table.

    Args:
        short: where the rewriting was made.
        read: the version that it was made from.
        identity: of the table.
        disk: the table's.

    Returns:
        Its version, visible and, after `disk.settle`, on the disk.

    Raises:
        RivalInTheWay: nothing landed.
        WriterTableError: the table is gone, or damaged.
        OSError: it may have landed where the answer of a network's disk was lost; its files stay.
    """
    content = short.entry(read + 1)
    ours = _files_of(content)
    short.move_files(ours.added)
    table = open_table(short.table, with_files=False)
    identity.check(table)
    if table is None:
        raise FileNotFoundError(2, "There is no table", str(short.root))
    newest = int(table.version())
    try:
        for version in range(read + 1, newest + 1):
            _check_rival(short.root, version, ours)
        with disk.prepared(content) as hidden:
            while not disk.publish(hidden, newest + 1):
                newest += 1
                _check_rival(short.root, newest, ours)
    except RivalInTheWay:
        for path in ours.added:
            with suppress(OSError):  # VACUUM knows it as a file that no version names
                (short.root / path).unlink()
        raise
    except OSError:
        if _is_there(short.root, newest + 1, content):
            return newest + 1
        raise
    return newest + 1


def _check_rival(root: Path, version: int, ours: _Files) -> None:
    content = (root / entry_path(version)).read_bytes()
    if moves_of(content) is None:
        raise RivalInTheWay(f"Version {version} changed the table itself.")
    if ours.removed & _files_of(content).removed:
        raise RivalInTheWay(f"Version {version} removed files that were being rewritten.")


def _files_of(content: bytes) -> _Files:
    actions = [orjson.loads(line) for line in content.splitlines() if line.strip()]
    return _Files(
        {unquote(action["remove"]["path"]) for action in actions if "remove" in action},
        [unquote(action["add"]["path"]) for action in actions if "add" in action],
    )


def _is_there(root: Path, version: int, content: bytes) -> bool:
    try:
        return (root / entry_path(version)).read_bytes() == content
    except OSError:
        return False
