"""The folder that a demo owns: made anew, and never one that is somebody else's."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "warehouse" / "demo"
OWNER = ".sfwriter-demo"
"""File by which a demo knows its own folder; the running one holds a lock on it."""


class PlaceError(Exception):
    """The folder cannot be taken."""


class Place:
    """An empty folder, locked until this process ends."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        """Take the folder.

        Args:
            folder: which one. An earlier demo's is emptied, any other one with content is refused.
            keep: move an earlier demo's folder aside instead.

        Raises:
            PlaceError: it is not a demo's, or another demo is in it.
        """
        self.folder = folder.resolve()
        self.moved_to: Path | None = None
        owner = self.folder / OWNER
        if owner.exists():
            _locked(owner).close()
            if keep:
                self.moved_to = next(aside for aside in _asides(self.folder) if not aside.exists())
                self.folder.rename(self.moved_to)
            else:
                shutil.rmtree(self.folder)
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise PlaceError(f"{self.folder} is there and is not an earlier demo's; name another --folder")
        self._made = [above for above in self.folder.parents if not above.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            owner.touch()
        except OSError as error:
            raise PlaceError(f"{self.folder} cannot be made: {error}; name another --folder") from error
        self._lock = _locked(owner)

    def remove(self) -> None:
        """Delete the folder and all in it, and the folders above that were made for it and hold nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            for above in self._made:
                above.rmdir()


def _locked(owner: Path) -> TextIO:
    file = owner.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise PlaceError(f"another demo runs in {owner.parent}; wait for it, or name another --folder") from error
    return file


def _asides(folder: Path) -> list[Path]:
    return [folder.with_name(f"{folder.name}-{number}") for number in range(1, 1000)]
