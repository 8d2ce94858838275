"""A file as its format sees it: one shape for Parquet and for text.

Receives: a source and where to begin.
Produces: what a look at the content tells, and its chunks.
Guarantees: chunks that are skipped are counted and not parsed.
Never does: know what was written.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sfwriter.exceptions import WriterValidationError
from sfwriter.sources import parquet
from sfwriter.sources.chunk import SourceChunk
from sfwriter.sources.cuts import Limits, Position
from sfwriter.sources.delimited import read_header, rows_of_records
from sfwriter.sources.jsonl import rows_of_lines
from sfwriter.sources.records import Survey, cut, survey
from sfwriter.sources.streams import open_stream
from sfwriter.sources.widening import widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sfwriter.sources.cuts import Segment
    from sfwriter.sources.discover import Source
    from sfwriter.sources.records import RawChunk
    from sfwriter.sources.typed_text import Types


class Content(Protocol):
    """A file as one format sees it."""

    def look(self, mark: int) -> Survey:
        """One pass over the content; `mark` is the offset up to which it was met before."""

    def begin(self) -> tuple[Position, Limits]:
        """Where the first row is, and how the source is cut when it is met for the first time."""

    def grows(self) -> bool:
        """Whether content may be added at the end."""

    def chunks(self, segment: Segment, start: Position, limits: Limits, skip: int) -> Iterator[SourceChunk]:
        """The chunks of a segment from `start` on; those numbered below `skip` may come without rows."""


def content_of(source: Source, types: Types, check: Callable[[], None], budget_bytes: int = 0) -> Content:
    """The source's content.

    Args:
        source: the file.
        types: what text is parsed for.
        check: called for each MiB of a look at the content; it may raise to stop.
        budget_bytes: memory that its writer may hold in flight.
    """
    return _Table(source, types, check, budget_bytes) if source.format == "parquet" else _Text(source, types, check)


class _Table:
    """A Parquet file: one segment, whose offsets are rows."""

    def __init__(self, source: Source, types: Types, check: Callable[[], None], budget_bytes: int) -> None:
        self._source = source
        self._types = types
        self._check = check
        self._budget_bytes = budget_bytes

    def look(self, mark: int) -> Survey:  # noqa: ARG002  the whole file is compared
        digest = parquet.file_digest(self._source, self._check)
        return Survey(parquet.count_rows(self._source), digest, 0, digest, joined_at_mark=False)

    def begin(self) -> tuple[Position, Limits]:
        return Position(), parquet.limits_of(self._source, self._budget_bytes)

    def grows(self) -> bool:
        return False

    def chunks(self, segment: Segment, start: Position, limits: Limits, skip: int) -> Iterator[SourceChunk]:
        past = min(max(skip, start.sequence) * limits.rows, segment.end)
        if past > start.row:
            before = start
            start = Position(-(-past // limits.rows), past, past, past)
            if start.sequence > before.sequence:
                yield SourceChunk(replace(start, sequence=start.sequence - 1), start, [])
        if start.offset < segment.end:
            for chunk in parquet.read_chunks(self._source, start, limits):
                yield replace(chunk, rows=widened(chunk.rows, self._types))


class _Text:
    """A JSONL or CSV file."""

    def __init__(self, source: Source, types: Types, check: Callable[[], None]) -> None:
        self._source = source
        self._check = check
        self._types = types
        self._names: list[str] = []

    def look(self, mark: int) -> Survey:
        return survey(self._source, mark, self._check)

    def begin(self) -> tuple[Position, Limits]:
        return self._header(), Limits()

    def grows(self) -> bool:
        return True

    def _header(self) -> Position:
        """Read past a byte order mark and, in CSV, the header."""
        with open_stream(self._source) as stream:
            mark = stream.peek(4)[:4]
            if mark[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                raise WriterValidationError(
                    f"{self._source} is UTF-16, and UTF-8 is read",
                    context={"source": str(self._source)},
                    suggestions=["convert it: iconv -f UTF-16 -t UTF-8"],
                    code="source_broken",
                )
            skipped = 3 if mark[:3] == b"\xef\xbb\xbf" else 0
            stream.read(skipped)
            if self._source.format != "csv":
                return Position(offset=skipped)
            header = read_header(self._source, stream, skipped, 0)
            if header is None:
                return Position(offset=skipped)
            self._names = header.names
            return Position(offset=header.nbytes, line=header.lines)

    def chunks(self, segment: Segment, start: Position, limits: Limits, skip: int) -> Iterator[SourceChunk]:
        if start.offset >= segment.end:
            return
        if self._source.format == "csv" and not self._names:
            self._header()
        with open_stream(self._source, start.offset) as stream:
            for raw in cut(self._source, stream, segment, start, limits):
                if raw.records and raw.start.sequence >= skip:
                    yield self._chunk(raw, segment.end)
                else:
                    yield SourceChunk(raw.start, raw.end, [])

    def _chunk(self, raw: RawChunk, end: int) -> SourceChunk:
        if self._source.format == "csv":
            rows, faults = rows_of_records(raw.records, self._names, self._types)
        else:
            rows, faults = rows_of_lines(raw.records, self._types)
        return SourceChunk(raw.start, raw.end, rows, _compact(raw.lines), faults, raw.end.offset / end)


def _compact(lines: list[int]) -> Sequence[int]:
    """The same numbers in little memory: a chunk keeps them until it is committed."""
    if lines[-1] - lines[0] == len(lines) - 1:
        return range(lines[0], lines[-1] + 1)
    return array("q", lines)
