"""Maintenance of a Delta table through Spark SQL: OPTIMIZE, Z-order, VACUUM.

Receives: actions of `sfwriter.storage.engine`.
Produces: their figures.
Guarantees: what `DeltaMaintainer` guarantees; settings that an action needs are those of a session of its own.
Never does: leave a setting behind; delete what a commit may still name.

Looking (survey, history) is done through delta-rs: it reads the log and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sfwriter.storage.delta_maintain import DeltaMaintainer
from sfwriter.storage.place import local_root
from sfwriter.storage.rewriting import RivalInTheWay
from sfwriter.storage.spark_faults import first_words_of, is_rival, reported_by_spark
from sfwriter.storage.spark_scan import by_path
from sfwriter.storage.spark_tend import figures_of, optimized, vacuumed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import Compact, Sort, TableSpec, Vacuum
    from sfwriter.storage.spark_bridge import SparkBridge


class SparkMaintainer(DeltaMaintainer):
    """Carries out actions on one table through Spark. Thread-safe: they take turns."""

    def __init__(
        self, spec: TableSpec, identity: TableIdentity, disk: LogDisk, clock: Clock, *, bridge: SparkBridge
    ) -> None:
        """Touch nothing yet."""
        super().__init__(spec, identity, disk, clock)
        self._bridge = bridge

    def _rewrite(self, action: Compact | Sort) -> Mapping[str, Any]:
        self._opened()
        with reported_by_spark("optimize", self._spec):
            try:
                metrics = optimized(self._bridge, self._spec, by_path(self._path()), action)
            except Exception as error:
                if is_rival(error):
                    raise RivalInTheWay(first_words_of(error)) from error
                raise
        return figures_of(metrics, self._settled())

    def _delete_files(self, table: DeltaTable, action: Vacuum) -> list[str]:  # noqa: ARG002  Spark has its own look
        deleted = vacuumed(self._bridge, self._spec, by_path(self._path()), action)
        return [self._relative(path) for path in deleted]

    def _relative(self, path: str) -> str:
        plain = unquote(path.removeprefix("file://").removeprefix("file:"))
        root = self._path().rstrip("/")
        return plain.removeprefix(f"{root}/")

    def _path(self) -> str:
        root = local_root(self._spec.location)
        return self._spec.location if root is None else str(root)
