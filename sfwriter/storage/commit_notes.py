"""What each commit's log entry remembers of the batches in it, and a cache of the newest entries.

Receives: commit groups on their way in, entries of a Delta table's history on the way out.
Produces: the text that is stored with a commit, and each producer's marks.
Guarantees: an entry that other programs wrote is passed over, whatever it holds.
Never does: read a log; the caller brings the entries.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfwriter.storage.engine import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sfwriter.storage.engine import CommitGroup

FIELD = "userMetadata"
"""Delta's own field for such text: delta-rs's history has it, and Spark's DESCRIBE HISTORY, too."""

REMEMBERED_COMMITS = 200
"""How far back marks are looked for: 50 entries were read in 6 ms."""

MARKS_PER_PRODUCER = 256
"""Of one commit. More would make the entry of a group of many small batches long; batches are looked up soon."""

_MARKS_IN_CACHE = 50_000
"""About 10 MB; older commits are forgotten first."""

_KEY = "sfwriter"


@dataclass(frozen=True, slots=True)
class CommitNote:
    """One commit's group id and marks."""

    group_id: str
    marks: Mapping[str, Mapping[int, Mark]]

    def to_text(self) -> str:
        """Compact JSON: `{"sfwriter": {"group": id, "marks": {producer: {number: [digest, stamp]}}}}`."""
        marks = {
            producer: {str(number): [mark.digest, mark.stamp] for number, mark in found.items()}
            for producer, found in self.marks.items()
        }
        return json.dumps({_KEY: {"group": self.group_id, "marks": marks}}, separators=(",", ":"))

    @classmethod
    def of(cls, group: CommitGroup) -> CommitNote:
        """What is to be stored with this group."""
        return cls(
            group.group_id,
            {
                advance.producer_id: {
                    number: advance.marks[number] for number in sorted(advance.marks)[-MARKS_PER_PRODUCER:]
                }
                for advance in group.advances
                if advance.marks
            },
        )

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> CommitNote | None:
        """What one entry of a table's history says, None where it is not ours."""
        text = entry.get(FIELD)
        if not isinstance(text, str) or _KEY not in text:
            return None
        try:
            told = json.loads(text)[_KEY]
            marks = {
                str(producer): {int(number): Mark(str(digest), str(stamp)) for number, (digest, stamp) in found.items()}
                for producer, found in told["marks"].items()
            }
            return cls(str(told["group"]), marks)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # another program's text that happens to look like ours


class CommitNotes:
    """The newest commits' notes by version. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self.version: int | None = None
        self._notes: dict[int, CommitNote] = {}
        self._marks = 0

    def missing(self, version: int) -> int:
        """How many entries of the history are to be brought to know everything up to `version`."""
        known = -1 if self.version is None else self.version
        return max(0, min(version - known, REMEMBERED_COMMITS))

    def learn(self, entries: Iterable[Mapping[str, Any]], version: int) -> None:
        """Take in the newest entries, as far as they are new; `version` is that of the table."""
        known = -1 if self.version is None else self.version
        for entry in sorted(entries, key=lambda entry: int(entry["version"])):
            if known < int(entry["version"]) <= version:
                note = CommitNote.from_entry(entry)
                if note is not None:
                    self._add(int(entry["version"]), note)
        self.version = max(known, version)

    def add_next(self, note: CommitNote | None, version: int) -> None:
        """Take in the commit that made this version, where nothing before it is unknown. None: it has no note."""
        if self.version == version - 1:
            if note is not None:
                self._add(version, note)
            self.version = version

    def marks(self, producer: str) -> dict[int, tuple[Mark, int]]:
        """Number to mark and version."""
        return {
            number: (mark, version)
            for version, note in self._notes.items()
            for number, mark in note.marks.get(producer, {}).items()
        }

    def version_of(self, group_id: str) -> int | None:
        """The version that this group made, None where no remembered one did."""
        return next((version for version, note in self._notes.items() if note.group_id == group_id), None)

    def _add(self, version: int, note: CommitNote) -> None:
        self._notes[version] = note
        self._marks += sum(len(found) for found in note.marks.values())
        while len(self._notes) > REMEMBERED_COMMITS or (self._marks > _MARKS_IN_CACHE and len(self._notes) > 1):
            oldest = self._notes.pop(next(iter(self._notes)))
            self._marks -= sum(len(found) for found in oldest.marks.values())
