"""Delta's checksums: a small file beside a log entry that says what the table is at its version.

Receives: the files that an entry of our own adds.
Produces: the checksum of its version, from that of the version before.
Guarantees: what is written is what Delta would count; a version whose predecessor has none gets none. A checksum is
    whole when it has its name.
Never does: flush one. Readers do without those that are missing or damaged.

With a checksum Spark knows a table's columns and properties without reading its log: a job less, some 200 ms, for each
reader, and for each commit of its own.

The names are those of https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Version Checksum File".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from sfwriter.storage.log_tail import checksum_path
from sfwriter.storage.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.storage.engine import StagedFile, TableSpec

_NEEDED = {"tableSizeBytes", "numFiles", "metadata", "protocol"}
_KEPT = ("numMetadata", "numProtocol", "metadata", "protocol", "domainMetadata")
"""What an append leaves as it is. Everything else beside the two counts may be left out."""


class DeltaChecksums:
    """Those of one table. For one thread at a time."""

    def __init__(self, spec: TableSpec) -> None:
        """Read nothing yet."""
        self._place = place_of(replace(spec, fsync=False))
        self._last: tuple[int, dict[str, Any]] | None = None

    def has(self, version: int) -> bool:
        """Whether this version has one that the next one's can be made from."""
        return self._of(version) is not None

    def follow(self, version: int, files: Iterable[StagedFile]) -> None:
        """Write that of a version which has only added these files; nothing where the one before has none."""
        before = self._of(version - 1)
        if before is None:
            return
        sizes = [file.size_bytes for file in files]
        found = {
            "tableSizeBytes": before["tableSizeBytes"] + sum(sizes),
            "numFiles": before["numFiles"] + len(sizes),
            **{name: before[name] for name in _KEPT if name in before},
        }
        with suppress(OSError):  # the next commit is Delta's then, and writes one
            new = self._place.create(checksum_path(version))
            try:
                new.sink.write(orjson.dumps(found))
                new.keep()
            except OSError:
                new.drop()
                raise
            self._last = (version, found)

    def _of(self, version: int) -> dict[str, Any] | None:
        if self._last is None or self._last[0] != version:
            try:
                with self._place.open(checksum_path(version)) as file:
                    found = orjson.loads(file.read())
                if not found.keys() >= _NEEDED:
                    return None
            except (OSError, ValueError, AttributeError):
                return None
            self._last = (version, found)
        return self._last[1]
