"""pyarrow's way to an object store, through delta-rs's own client: same addresses, same options.

Receives: addresses and storage options as delta-rs takes them.
Produces: a pyarrow file system.
Guarantees: what is written is an object when its stream is closed, and not before.
Never does: run for a local folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.fs import DeltaStorageHandler

if TYPE_CHECKING:
    from collections.abc import Mapping


def file_system(location: str, storage_options: Mapping[str, str]) -> Any:
    """A `pyarrow.fs.FileSystem` with paths relative to the location."""
    return pafs.PyFileSystem(_Handler(location, dict(storage_options)))


class _Handler(DeltaStorageHandler):
    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> Any:
        return pa.PythonFile(_BytesOnly(self._handler.open_output_stream(path, metadata)), mode="w")


class _BytesOnly:
    """pyarrow 26 hands a Python file its own buffers where earlier ones gave bytes; delta-rs takes only bytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def write(self, data: Any) -> int:
        return int(self._stream.write(bytes(data)))

    def tell(self) -> int:
        return int(self._stream.tell())

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()
