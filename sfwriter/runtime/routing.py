"""A batch's rows to the tables that the patterns name, and what is told of them.

The configured table answers for the producer whatever the patterns say: it keeps the numbers, and the rows
that are named for it. The others are committed before it, so that a number there never claims a batch that
is half there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfwriter.modes import WriteMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from sfwriter.batch import EncodedBatch
    from sfwriter.config import WriterConfig
    from sfwriter.ingest.routes import Router
    from sfwriter.runtime.channel import Receipt


def routed(config: WriterConfig, batch: EncodedBatch, router: Router) -> EncodedBatch:
    """The batch with its rows at the tables that they are named for."""
    if not batch.rows.num_rows:
        return batch
    tables = router.by_table(batch.rows)
    own = tables.pop(config.table_fqn, batch.rows.slice(0, 0))
    return replace(batch, rows=own, beside={**batch.beside, **tables})


def by_table(config: WriterConfig, rows: pa.Table, router: Router | None) -> dict[str, pa.Table]:
    """Rows at the tables that they are named for; without patterns at the configured one."""
    return {config.table_fqn: rows} if router is None else router.by_table(rows)


def rows_by_table(config: WriterConfig, batch: EncodedBatch) -> dict[str, pa.Table]:
    """The log's tables that the batch has rows for, and these rows."""
    tables = {**batch.beside, config.table_fqn: batch.rows}
    tables.pop(_quality_table(config), None)
    return {name: rows for name, rows in tables.items() if rows.num_rows}


def _quality_table(config: WriterConfig) -> str:
    return f"{config.table_schema}.{config.quality_table_name}"


def replaced_tables(config: WriterConfig, batch: EncodedBatch) -> frozenset[str]:
    """The tables whose rows the batch replaces: those that it has rows for; without patterns the configured one."""
    if config.write_mode is not WriteMode.OVERWRITE:
        return frozenset()
    if not config.is_routed:
        return frozenset({config.table_fqn})
    return frozenset(rows_by_table(config, batch))


def tables_of(config: WriterConfig, batch: EncodedBatch, receipt: Receipt | None) -> dict[str, Any]:
    """What a result says of the tables: `table_fqn` and `version`, or both None and `tables`.

    A version that is not known is None, and there are no rows: another call brought them.
    """
    already = receipt is not None and receipt.already
    log_table = config.table_fqn
    versions: Mapping[str, int] = {} if receipt is None else {**receipt.beside, log_table: receipt.version}
    filled = rows_by_table(config, batch)
    if len(filled) > 1:
        tables = {
            name: {"rows": 0 if already else rows.num_rows, "version": versions.get(name)}
            for name, rows in filled.items()
        }
        return {"table_fqn": None, "version": None, "tables": tables}
    name = next(iter(filled), log_table)
    return {"table_fqn": name, "version": versions.get(name)}
