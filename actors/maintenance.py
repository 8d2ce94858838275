"""The maintenance actor: rewriting and deleting of files, one job at a time, out of the writers' way."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from actors.calls import actor_of, answer_of
from actors.lives import restarts
from actors.options import CALL_TIMEOUT_S, CARE_EVERY_S, NICE, REST
from actors.spark_table import engine_of
from sfwriter.clock import SystemClock
from sfwriter.limits import process_memory
from sfwriter.maintenance.keeper import WRITES_PER_LOOK, join_small_files
from sfwriter.maintenance.maintainer import Maintainer
from sfwriter.runtime.blueprint import further_table_spec, log_table_spec, quarantine_table_spec
from sfwriter.runtime.telling import Teller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.config import WriterConfig
    from sfwriter.results import MaintainResult
    from sfwriter.storage.engine import Table


class Maintenance:
    """Carries out what is asked, and joins small files by itself where that pays.

    It runs below the priority of everything else on its node, and rests after each job that nobody asked for.
    Jobs of other processes are kept off by the table's own lock. What it is in the middle of when it dies is not
    done: a job asked for is repeated, one of its own is planned anew.
    """

    def __init__(self, service: str, config: WriterConfig) -> None:
        """Begin to look after the service's tables, where `enable_optimization` is on.

        Args:
            service: its name.
            config: what the service runs with.
        """
        self._service = service
        self._config = config
        self._engine = engine_of(service, config)
        self._clock = SystemClock()
        self._one = threading.Lock()
        self._state = threading.Lock()
        self._running: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._jobs = self._failures = 0
        self._log = Teller(None)
        os.nice(NICE)
        if config.enable_optimization:
            threading.Thread(target=self._care, name="care", daemon=True).start()

    def maintain(self, options: dict[str, Any] | None = None) -> MaintainResult:
        """See `LogWriter.maintain_table`. Waits for the job before it.

        Raises:
            WriterError: as there.
        """
        spec = log_table_spec(self._config)
        maintainer = Maintainer(
            self._engine.open(spec),
            self._clock,
            evolution=self._config.enable_schema_evolution,
            sorting=self._config.auto_optimize_schema,
            tell=self._at,
        )
        with self._one, self._job(spec.name, asked=True) as job:
            result = maintainer.maintain(options)
            job["operations"] = result["maintenance_operations"]
        return result

    def look(self) -> dict[str, Any]:
        """The job that runs and the last one (None: none), and how many ended or failed since this actor began."""
        with self._state:
            return {
                "running": None if self._running is None else dict(self._running),
                "last": self._last,
                "jobs_total": self._jobs,
                "failures_total": self._failures,
                "memory_bytes": process_memory().own,
            }

    def ping(self) -> dict[str, Any]:
        """Who and where it is."""
        with self._state:
            state = "idle" if self._running is None else "working"
        context = ray.get_runtime_context()
        return {
            "pid": os.getpid(),
            "node_id": context.get_node_id(),
            "state": state,
            "memory_bytes": process_memory().own,
            "restarts": restarts(),
        }

    # ------------------------------------------------------------ jobs

    @contextmanager
    def _job(self, table: str, *, asked: bool) -> Iterator[dict[str, Any]]:
        began = self._clock.monotonic()
        job: dict[str, Any] = {"table": table, "asked": asked, "step": None, "started": self._clock.now()}
        with self._state:
            self._running = job
        error: str | None = None
        try:
            yield job
        except BaseException as failure:
            error = str(failure)
            raise
        finally:
            with self._state:
                self._running = None
                self._jobs += 1
                self._failures += error is not None
                self._last = {**job, "duration_secs": self._clock.monotonic() - began, "error": error}

    def _at(self, step: str) -> None:
        with self._state:
            if self._running is not None:
                self._running["step"] = step

    # ------------------------------------------------------------ by itself

    def _care(self) -> None:
        """Look after each table that many commits went to since the last look."""
        looked: dict[str, int] = {}
        while True:
            for name, commits in self._commits().items():
                # Fewer than before: another life of the coordinator counts.
                since = commits - looked.get(name, 0) if commits >= looked.get(name, 0) else commits
                if since >= WRITES_PER_LOOK:
                    looked[name] = commits
                    self._care_for(self._table(name))
            self._clock.sleep(CARE_EVERY_S)

    def _care_for(self, table: Table) -> None:
        began = self._clock.monotonic()
        try:
            with self._one, self._job(table.spec.name, asked=False) as job:
                joined = join_small_files(table, tell=self._at)
                job["files_before"], job["files_after"] = joined
        except Exception as error:  # noqa: BLE001  tables are written all the same, and looked at again later
            self._log.warning("{}: maintenance failed: {}", table.spec.name, error)
        self._clock.sleep(REST * (self._clock.monotonic() - began))

    def _commits(self) -> dict[str, int]:
        try:
            coordinator = actor_of(self._service, "coordinator")
            found: dict[str, int] = answer_of(self._service, coordinator.commits.remote, timeout=CALL_TIMEOUT_S)
        except Exception:  # noqa: BLE001  a coordinator that is away is asked again
            return {}
        return found

    def _table(self, name: str) -> Table:
        for spec in (log_table_spec(self._config), quarantine_table_spec(self._config)):
            if spec.name == name:
                return self._engine.open(spec)
        return self._engine.open(further_table_spec(self._config, name))


MaintenanceActor = ray.remote(Maintenance)
