"""A local table without the past of its log, for work of delta-rs that would list all of that again and again.

Receives: the spec of a table on a local disk.
Produces: a spec of the same table: a folder of links beside its files, with a log that begins at the newest checkpoint.
Guarantees: what is done there changes nothing of the table until it is moved; the folder goes with the block, and
    that of a process that was killed goes with VACUUM. Readers of the table do not see it: its name is hidden.
Never does: decide whether a commit that was made there may become one of the table.

delta-rs lists the whole log of a local table whenever it opens, commits to, or makes a checkpoint of it: 0.85 µs for
each entry, and a busy table gets a million in a day.
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sfwriter.storage.log_tail import LAST_CHECKPOINT, checkpoint_name, entry_path, tail_of
from sfwriter.storage.place import LOG_FOLDER, fsync_path, local_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sfwriter.storage.engine import TableSpec


@contextmanager
def short_log(spec: TableSpec) -> Iterator[ShortLog]:
    """The newest version of a table that is there.

    Raises:
        OSError: it is not there, or the folder could not be made.
        ValueError: the table is in an object store.
    """
    root = local_root(spec.location)
    if root is None:
        raise ValueError(f"{spec.name} is not on a local disk")
    folder = root / f".{uuid.uuid4()}.tmp"
    folder.mkdir()
    try:
        log = folder / LOG_FOLDER
        log.mkdir()
        tail = tail_of(root)
        # Not `_last_checkpoint`: it would soon tell of one that is not here.
        for name in (*tail.checkpoints, *tail.entries):
            _link(root / LOG_FOLDER / name, log / name)
        yield ShortLog(spec, replace(spec, location=str(folder)), root, folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class ShortLog:
    """What `short_log` gives.

    Attributes:
        table: the spec of the table itself.
        spec: the same at the folder of links.
        root: the table's own folder.
        folder: that of links.
    """

    table: TableSpec
    spec: TableSpec
    root: Path
    folder: Path

    def show_files(self, paths: Iterable[str]) -> None:
        """Let data files be found, given by their paths under the table's folder. Raises OSError."""
        for name in {path.split("/", 1)[0] for path in paths}:
            _link(self.root / name, self.folder / name)

    def entry(self, version: int) -> bytes:
        """One that was made here. Raises OSError."""
        return (self.folder / entry_path(version)).read_bytes()

    def move_files(self, paths: Iterable[str]) -> None:
        """Give the table the data files that were made here, and flush them to the disk. Raises OSError."""
        files = [self.root / path for path in paths]
        for file in files:
            # A partition's folder is a link: what was made in it is in its place.
            if not file.exists():
                (self.folder / file.relative_to(self.root)).rename(file)
        if self.spec.fsync:
            for path in {*files, *(file.parent for file in files)}:
                fsync_path(path)

    def move_checkpoint(self, version: int) -> None:
        """Give the table the checkpoint that was made here, whole on the disk before readers are sent to it.

        Where the table had one of this version delta-rs made none: what is here is the link to it.

        Raises:
            OSError: it may be there, or not.
        """
        own, tables = (folder / LOG_FOLDER / checkpoint_name(version) for folder in (self.folder, self.root))
        if tables.exists() and own.samefile(tables):
            return
        for name in (checkpoint_name(version), LAST_CHECKPOINT):
            made, kept = self.folder / LOG_FOLDER / name, self.root / LOG_FOLDER / name
            if self.spec.fsync:
                fsync_path(made)
            made.rename(kept)
            if self.spec.fsync:
                fsync_path(kept.parent)


def _link(kept: Path, shown: Path) -> None:
    """Let a file or folder be found by a second name.

    A symbolic link is a file of its own: a thousand took 0.8 s where the disk had much to write, hard ones 10 ms. But
    folders have no hard links, nor has, for other users, a file that they may not write.
    """
    try:
        shown.hardlink_to(kept)
    except OSError:
        shown.symlink_to(kept)
