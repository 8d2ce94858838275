"""Where producers stand at one version of a table, so that a commit need not ask the log for each.

delta-rs answers for one producer at a time and goes through the whole log since the last checkpoint for
one that it does not find: up to 4 ms each. What a table says at a version never changes (but that a
producer expires, and then the commit that trusts this is still right), so it can be kept for that version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 20_000
"""About 4 MB; beyond it everything is forgotten and asked for again."""


class KnownSequences:
    """Producer to highest committed number at one version. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._found: dict[str, int | None] = {}

    def agrees(self, version: int, producer: str, sequence: int | None) -> bool:
        """Whether the producer is known to stand there at this version. False says nothing."""
        return self._version == version and producer in self._found and self._found[producer] == sequence

    def learn(self, version: int, found: Mapping[str, int | None]) -> None:
        """What was read at a version; an older one than is known is passed over."""
        if self._version is not None and version < self._version:
            return
        if self._version != version or len(self._found) > _MOST:
            self._found.clear()
        self._version = version
        self._found.update(found)

    def advance(self, version: int, moved: Mapping[str, int]) -> None:
        """This version moved these producers, and no other; where the one before is not known, all are forgotten."""
        if self._version is not None and version <= self._version:
            return
        if self._version != version - 1 or len(self._found) > _MOST:
            self._found.clear()
        self._version = version
        self._found.update(moved)

    def forget(self) -> None:
        """Know nothing."""
        self._version = None
        self._found.clear()
