"""Where a source is cut: the values that a journal remembers.

Receives: nothing.
Produces: positions, segments and the record of a source.
Guarantees: from a record and the unchanged content it follows which rows have which number.
Never does: read or write a file.

A source's content is divided into segments, one for each size at which it was met (a Parquet file has
one). A segment is cut into chunks from its start: each as many whole records as the limits allow; what
stands behind the segment's last line end is a chunk of its own, because it may turn out to be unfinished.
So a chunk's number names the same rows in every run, also after the file has grown: that only adds
segments. Offsets count decompressed bytes, in Parquet rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """When a chunk is full: whichever comes first. Fixed for a source once it has begun."""

    rows: int = 50_000
    nbytes: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Position:
    """A border between chunks.

    Attributes:
        sequence: number of the chunk that begins here.
        offset: of its first byte (Parquet: row).
        row: rows before it.
        line: line ends before it.
    """

    sequence: int = 0
    offset: int = 0
    row: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """Content that was met at once.

    Attributes:
        start: where its first chunk begins.
        body_end: offset behind its last record that is surely whole (it has a line end).
        end: offset of the content's end when it was met.
        digest: XXH3 (128 bits) of the content from the file's beginning to `end`.
    """

    start: Position
    body_end: int
    end: int
    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """What must be known of a source to go on with it.

    Attributes:
        path: of the source, for people who look into the file.
        generation: see `Source.producer_id`.
        limits: of its chunks.
        segments: in order, each from where the one before ends; those whose chunks are all committed are
            folded into an empty one at the beginning.
        replanned: the first number that an earlier run may have sent with other rows than these segments
            say. It is sent again even where the table has it, so that the table compares the content.
    """

    path: str
    generation: int
    limits: Limits
    segments: tuple[Segment, ...]
    replanned: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Record:
        """Undo `as_dict`. Raises KeyError, TypeError or ValueError where it is something else."""
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r} is not {FORMAT}")
        segments = tuple(
            Segment(Position(**part["start"]), int(part["body_end"]), int(part["end"]), str(part["digest"]))
            for part in found["segments"]
        )
        if not segments:
            raise ValueError("there are no segments")
        replanned = found["replanned"]
        return cls(
            path=str(found["path"]),
            generation=int(found["generation"]),
            limits=Limits(**found["limits"]),
            segments=segments,
            replanned=None if replanned is None else int(replanned),
        )
