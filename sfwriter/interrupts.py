"""Ctrl-C while DuckDB works.

Receives: what DuckDB raises.
Produces: `KeyboardInterrupt` where the user pressed Ctrl-C: DuckDB's module makes a bare `RuntimeError` of it.
Never does: touch any other error; DuckDB's own are `duckdb.Error`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOLD_AS = "Query interrupted"


@contextmanager
def ctrl_c_told() -> Iterator[None]:
    """Raise `KeyboardInterrupt` where a query within was stopped by SIGINT."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is RuntimeError and str(error) == _TOLD_AS:
            raise KeyboardInterrupt from error
        raise
