"""A text file's content as bytes, whatever it is compressed with.

Receives: a source.
Produces: a buffered stream of its decompressed bytes.
Guarantees: several gzip members or zstd frames, one after the other, read as one content. A file that
    ends inside one raises instead of ending early. A piece of input becomes at most some 16 MiB at a time.
Never does: hold the file's content.
"""

from __future__ import annotations

import io
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import zstandard

from sfwriter.exceptions import WriterValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.sources.discover import Source

BLOCK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 14
"""Deflate expands at most 1,032 times, so a piece becomes at most 16.5 MiB."""


def open_stream(source: Source, offset: int = 0) -> io.BufferedReader:
    """The decompressed bytes from `offset` on; those before it of a compressed file are read and dropped."""
    raw = source.path.open("rb", buffering=0)
    if source.compression is None:
        raw.seek(offset)
        return io.BufferedReader(raw, BLOCK_BYTES)
    stream: io.BufferedReader = io.BufferedReader(_Decompressed(raw, source), BLOCK_BYTES)
    try:
        while offset > 0 and (block := stream.read(min(offset, BLOCK_BYTES))):
            offset -= len(block)
    except BaseException:
        stream.close()
        raise
    return stream


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Turn what the operating system says of a file into this library's error."""
    try:
        yield
    except OSError as error:
        raise WriterValidationError(
            f"{source} cannot be read: {error.strerror or error}",
            context={"source": str(source)},
            suggestions=["see that the file is there and that you may read it, then run the same command again"],
            code="source_unreadable",
        ) from error


class _Decompressed(io.RawIOBase):
    def __init__(self, raw: io.FileIO, source: Source) -> None:
        self._raw = raw
        self._source = source
        self._decoder: Any = None
        self._rest = b""
        self._ready = memoryview(b"")
        self._begun = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, target: Any) -> int:
        while not self._ready:
            data = self._rest or self._raw.read(_PIECE_BYTES) or b""
            self._rest = b""
            if self._decoder is None:
                if self._begun and self._source.compression == "gzip":
                    data = data.lstrip(b"\0")  # tapes and some tools pad with zeros between and after members
                    if not data and self._raw.tell() < self._source.path.stat().st_size:
                        continue
                if not data:
                    return 0
                self._decoder = self._new_decoder()
                self._begun = True
            elif not data:
                raise self._broken("ends in the middle of its compressed data: it is truncated, or still being written")
            self._ready = memoryview(self._decompressed(data))
        view = memoryview(target).cast("B")
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _new_decoder(self) -> Any:
        if self._source.compression == "gzip":
            return zlib.decompressobj(wbits=31)
        return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()

    def _decompressed(self, data: bytes) -> bytes:
        try:
            made: bytes = self._decoder.decompress(data)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._broken(
                f"is no valid {self._source.compression} data before byte {self._raw.tell():,}: {error}"
            ) from error
        if self._decoder.eof:
            self._rest = self._decoder.unused_data
            self._decoder = None
        return made

    def _broken(self, what: str) -> WriterValidationError:
        return WriterValidationError(
            f"{self._source} {what}",
            context={"source": str(self._source)},
            suggestions=["make the file anew or let its writer finish, then run the same command again"],
            code="source_broken",
        )
