"""Which table each row of a call goes to, where the configuration has patterns for table names.

Receives: rows in the log table's types, behind the gate's defaults.
Produces: a table name for each row, or the reason why there is none.
Guarantees: rows with equal values of the patterns' variables go to the same table; a name is refused, never
    cleaned or made up.
Never does: open a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, scalar_of
from sfwriter.exceptions import WriterValidationError
from sfwriter.naming import DEFAULT_PATTERN, variables_of
from sfwriter.quality.builtin import Breach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.clock import Clock
    from sfwriter.config import WriterConfig

_MOMENTS = ("date", "timestamp")
_UNIT = {"timestamp": "second", "date": "day"}


class Router:
    """Gives rows their tables, by `WriterConfig.generate_table_name`."""

    def __init__(self, config: WriterConfig, clock: Clock) -> None:
        """Prepare for a configuration; `clock` is for rows that have no time."""
        self._config = config
        self._clock = clock
        used = variables_of((config.table_name_pattern or DEFAULT_PATTERN) + (config.table_suffix_pattern or ""))
        self._texts = tuple(name for name in ("pipeline_id", "run_mode") if name in used)
        # A name with the second in it tells days apart as well.
        self._moment = next((_UNIT[name] for name in reversed(_MOMENTS) if name in used), None)

    def breaches(self, rows: pa.Table) -> Iterator[Breach]:
        """The rows that no table can be named for."""
        for key, places in self._groups(rows):
            try:
                self._name(key)
            except WriterValidationError as error:  # noqa: PERF203  each name is judged by itself
                for place in places.to_pylist():
                    # In every mode: a row without a table cannot be kept.
                    yield Breach(place, "table_name_pattern", error.message, "the row has a table", missing=True)

    def by_table(self, rows: pa.Table) -> dict[str, pa.Table]:
        """Table name to its rows, in their order. Every row has a table.

        Raises:
            WriterValidationError: one has none.
        """
        places: dict[str, list[pa.Array]] = {}
        for key, found in self._groups(rows):
            places.setdefault(self._name(key), []).append(found)
        if len(places) == 1:
            return dict.fromkeys(places, rows)
        return {name: rows.take(_in_order(found)) for name, found in places.items()}

    def _name(self, key: dict[str, Any]) -> str:
        config = self._config
        name = config.generate_table_name(key.get("pipeline_id"), key.get("run_mode"), key.get("moment"))
        if name in {
            f"{config.table_schema}.{own}" for own in (config.quarantine_table_name, config.quality_table_name)
        }:
            raise WriterValidationError(
                f"the patterns name {name}, which is this writer's table of quarantine or of quality results",
                context={"table": name},
                suggestions=["Choose patterns whose names cannot end so, or another table_name."],
            )
        return name

    def _groups(self, rows: pa.Table) -> Iterator[tuple[dict[str, Any], pa.Array]]:
        """The variables' values, each combination once, with the positions of its rows in order."""
        keys: dict[str, Any] = {name: rows.column(name) for name in self._texts}
        if self._moment is not None:
            now = scalar_of(int(self._clock.now().timestamp() * 1_000_000), pa.int64()).cast(pa.timestamp("us", "UTC"))
            given = pc.coalesce(rows.column("run_started_at"), rows.column("start_time"), now)
            keys["moment"] = pc.floor_temporal(given, unit=self._moment)
        places = array_of(range(rows.num_rows), pa.int64())
        if not keys:
            yield {}, places
            return
        keyed = pa.table({**keys, "": places})
        groups = keyed.group_by(list(keys), use_threads=False).aggregate([("", "list")])
        for key, found in zip(groups.select(list(keys)).to_pylist(), groups.column("_list"), strict=True):
            yield key, found.values


def _in_order(places: list[pa.Array]) -> pa.Array:
    """Positions of one table's rows, rising."""
    if len(places) == 1:
        return places[0]
    whole = pa.concat_arrays(places)
    return whole.take(pc.sort_indices(whole))
