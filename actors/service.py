"""A service: its start, what it says of itself, its end."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.calls import actor_of, answer_of
from actors.client import LogClient, RemoteChannel
from actors.cluster import end_ray, join_ray, start_ray
from actors.coordinator import CoordinatorActor
from actors.exposition import exposition
from actors.maintenance import MaintenanceActor
from actors.metrics import MetricsActor
from actors.options import (
    CALL_TIMEOUT_S,
    coordinator_options,
    maintenance_options,
    metrics_options,
    spark_options,
)
from actors.spark_host import SparkActor
from actors.spark_table import FIRST_WAKE_S, SparkCalls
from actors.wire import cause_of
from sfwriter import __version__
from sfwriter.clock import SystemClock
from sfwriter.config import WriterConfig
from sfwriter.exceptions import WriterConfigurationError, WriterError
from sfwriter.runtime.blueprint import log_table_spec, warehouse_url
from sfwriter.runtime.examining import rules_of
from sfwriter.spark.installed import check_java, check_versions
from sfwriter.storage.delta_read import columns_of
from sfwriter.storage.delta_rs import DeltaRsEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from sfwriter.results import MaintainResult

START_TIMEOUT_S = 60.0
PRIVATE_TO_CLIENTS = ("producer_id",)
"""Options that are a client's own: a service is the same service whatever they are."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Service:
    """A handle on a running service. The service itself lives in Ray and outlives this object and its process."""

    def __init__(self, name: str, coordinator: Any) -> None:
        """Hold a running service; use `start` or `attach`."""
        self.name = name
        self.coordinator = coordinator
        self._metrics: Any = None

    @classmethod
    def start(
        cls, config: WriterConfig | None = None, name: str = "logs", *, origins: Mapping[str, str] | None = None
    ) -> Service:
        """Start a service, or attach to the one of this name.

        Ray is found by `RAY_ADDRESS` or on this machine, and started where none runs.

        Args:
            config: what to run with.
            name: of the service.
            origins: option to where its value came from, for `configuration`.

        Raises:
            WriterConfigurationError: the service of this name runs with another configuration; the
                error shows the differences. Or Spark is the engine, and Java, Spark or Delta are missing.
            WriterError: Ray or the service could not be started.
        """
        if config is not None and not isinstance(config, WriterConfig):
            raise WriterConfigurationError(
                f"config is a {type(config).__name__}, expected a WriterConfig",
                suggestions=["write WriterConfig(table_schema=…, table_name=…)"],
            )
        config = _absolute(config or WriterConfig())
        _check_name(name)
        # What cannot be read, and rules that are none, are said here and not by an actor.
        spec, by_spark = log_table_spec(config), config.engine == "spark"
        found = columns_of(spec) if by_spark else DeltaRsEngine().open(spec).stats().schema
        rules_of(config, found, SystemClock().now)
        started_ray = None
        if not join_ray(pass_by_strangers=True):
            if by_spark:  # which will run on this machine, then
                check_versions()
                check_java()
            started_ray = start_ray()
        try:
            if by_spark:
                _start_spark(name, config)
            made = cast("Any", CoordinatorActor).options(**coordinator_options(name))
            coordinator = made.remote(name, config, started_ray, origins)
            running = _patient_get(name, coordinator.configuration.remote, START_TIMEOUT_S)
            _check_same(name, config, running)
            cast("Any", MetricsActor).options(**metrics_options(name)).remote(name)
            _maintenance(name, config)
        except BaseException:
            if started_ray is not None:
                end_ray(started_ray)
            raise
        return cls(name, coordinator)

    @classmethod
    def attach(cls, name: str = "logs") -> Service:
        """Hold a service that runs.

        Raises:
            WriterError: there is none of this name.
        """
        return cls(name, _find(name))

    def configuration(self) -> dict[str, dict[str, str]]:
        """The options that are not at their default: `value` as text, without secrets, and its `origin`."""
        config: WriterConfig = _patient_get(self.name, self.coordinator.configuration.remote, CALL_TIMEOUT_S)
        origins: dict[str, str] = _patient_get(self.name, self.coordinator.origins.remote, CALL_TIMEOUT_S)
        return {
            option: {"value": value, "origin": origins.get(option, "the call")}
            for option, (value, _) in config.differences(WriterConfig()).items()
        }

    def metrics(self) -> dict[str, Any]:
        """Totals, the last minute's rates, latencies, bytes in flight against the budget, memory of each actor."""
        figures: dict[str, Any] = self._ask_metrics("read")
        return figures

    def history(self) -> list[dict[str, Any]]:
        """The last five minutes, once a second, the oldest first: totals, what is in flight, memory of all actors.

        Each has its `age_secs`. The metrics actor's death costs them.

        Raises:
            WriterError: as `metrics`.
        """
        points: list[dict[str, Any]] = self._ask_metrics("history")
        return points

    def _ask_metrics(self, method: str) -> Any:
        known, self._metrics = self._metrics, None
        try:
            try:
                answer = self._answer_of_metrics(known, method)
            except RayActorError:
                if known is None:
                    raise
                answer = self._answer_of_metrics(None, method)  # another one may have taken its place
        except (ValueError, RayActorError, GetTimeoutError) as error:
            raise WriterError(
                f"the metrics actor of service {self.name!r} does not answer: {_last_line(error)}",
                suggestions=["look at health(); the service writes on without it"],
                retriable=True,
            ) from error
        return answer

    def _answer_of_metrics(self, known: Any, method: str) -> Any:
        """Its name is looked up once: that is one of three calls that an answer takes."""
        actor = known or actor_of(self.name, "metrics")
        answer = answer_of(self.name, getattr(actor, method).remote, timeout=CALL_TIMEOUT_S)
        self._metrics = actor
        return answer

    def prometheus(self) -> str:
        """`metrics` as the text that Prometheus reads.

        Raises:
            WriterError: as `metrics`.
        """
        return exposition(self.name, self.metrics())

    def health(self) -> dict[str, Any]:
        """`status` (`ok`, `degraded`, `down`) with `reasons`, and the state of each actor."""
        clock = SystemClock()
        reasons: list[str] = []
        coordinator = self._look_at("coordinator", clock, reasons)
        metrics = self._look_at("metrics", clock, reasons)
        maintenance = self._look_at("maintenance", clock, reasons)
        spark = self._look_at_spark(clock, reasons)
        writers: list[dict[str, Any]] = []
        if coordinator["state"] != "down":
            try:
                writers = answer_of(self.name, self.coordinator.writers.remote, timeout=CALL_TIMEOUT_S)
            except (WriterError, RayActorError, GetTimeoutError) as error:
                reasons.append(f"the writers cannot be looked at: {error}")
            for writer in writers:
                writer.update(restarts=0, last_seen=clock.now())
                if writer["state"] == "down":
                    reasons.append(f"{writer['name']} does not answer")
            if coordinator["state"] == "draining":
                reasons.append("the service is draining and takes nothing more")
        status = "down" if coordinator["state"] == "down" else "degraded" if reasons else "ok"
        return {
            "status": status,
            "reasons": reasons,
            "coordinator": coordinator,
            "writers": writers,
            "metrics": metrics,
            "maintenance": maintenance,
            **spark,
        }

    def reconcile(self) -> dict[str, Any]:
        """The coordinator's ledger of its present life beside the table, for every producer.

        `consistent` is True where, for each producer, accepted = committed + refused + in flight, and the
        table's highest number is the one that was acknowledged last (or, with batches in flight, not below).
        """
        ledger: dict[str, Any] = _patient_get(self.name, self.coordinator.ledger.remote, CALL_TIMEOUT_S)
        producers = ledger["producers"]
        for entry in producers.values():
            entry["consistent"] = _is_consistent(entry)
        return {
            "consistent": all(entry["consistent"] for entry in producers.values()),
            "producers": producers,
            "quarantined_rows": ledger["quarantined_rows"],
        }

    def maintain(
        self, options: Mapping[str, Any] | None = None, progress: Callable[[dict[str, Any]], None] | None = None
    ) -> MaintainResult:
        """Have the maintenance actor do what `LogWriter.maintain_table` does; one job at a time.

        Args:
            options: operation to True or False, and `retention_hours`; None for all operations.
            progress: told a few times a second which job runs (`table`, `step`, `started`), while there is one.

        Raises:
            WriterValidationError, WriterTableError: as `LogWriter.maintain_table`.
            WriterError: the actor died again and again; what it had committed stays.
        """
        config = answer_of(self.name, self.coordinator.configuration.remote, timeout=CALL_TIMEOUT_S)
        actor = _maintenance(self.name, config)

        def tell() -> None:
            running = answer_of(self.name, actor.look.remote, timeout=CALL_TIMEOUT_S)["running"]
            if progress is not None and running is not None:
                progress(running)

        asked = dict(options) if isinstance(options, Mapping) else options
        try:
            result: MaintainResult = answer_of(
                self.name, actor.maintain.remote, asked, meanwhile=tell if progress else None
            )
        except RayTaskError as error:
            raise cause_of(error) from None
        except (RayActorError, GetTimeoutError) as error:
            raise WriterError(
                f"the maintenance actor of service {self.name!r} did not end its job: {error}",
                suggestions=["run it again: what is done already is not done twice"],
                retriable=True,
            ) from error
        return result

    def drain(self, timeout: float | None = None) -> dict[str, Any]:
        """Take nothing more and settle everything accepted: `drained`, and `in_flight_batches` where time ran out."""
        said: dict[str, Any] = answer_of(self.name, self.coordinator.drain.remote, timeout)
        return said

    def stop(self, timeout: float | None = 60.0) -> dict[str, Any]:
        """Drain, then end all actors, and Ray where this service started it. A second call does nothing."""
        try:
            coordinator = actor_of(self.name, "coordinator")
        except Exception:  # noqa: BLE001  no such actor, or no Ray any more: it is stopped
            return {"stopped": False, "drained": True, "in_flight_batches": 0}
        said = {"drained": False, "in_flight_batches": None}
        started_ray = None
        with contextlib.suppress(WriterError, RayActorError, GetTimeoutError):
            patience_s = None if timeout is None else timeout + CALL_TIMEOUT_S
            said = answer_of(self.name, coordinator.drain.remote, timeout, timeout=patience_s)
            started_ray = answer_of(self.name, coordinator.retire.remote, timeout=CALL_TIMEOUT_S)
        with contextlib.suppress(ValueError, WriterError, RayActorError, GetTimeoutError):
            spark = actor_of(self.name, "spark")
            answer_of(self.name, spark.retire.remote, timeout=CALL_TIMEOUT_S)
        for role in ("maintenance", "metrics", "coordinator", "spark"):
            with contextlib.suppress(ValueError, WriterError):
                ray.kill(actor_of(self.name, role))
        if started_ray is not None:
            end_ray(started_ray)
        return {"stopped": True, **said}

    def __enter__(self) -> Self:
        """The service itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def __repr__(self) -> str:
        """The name."""
        return f"Service({self.name!r})"

    def _look_at(self, role: str, clock: SystemClock, reasons: list[str]) -> dict[str, Any]:
        entry: dict[str, Any] = {"pid": None, "node_id": None, "state": "down", "restarts": 0, "last_seen": None}
        try:
            actor = actor_of(self.name, role)
            pong = answer_of(self.name, actor.ping.remote, timeout=CALL_TIMEOUT_S / 3)
        except ValueError:
            reasons.append(f"there is no {role}")
            return entry
        except WriterError as error:
            reasons.append(error.message)
            return entry
        except (RayActorError, GetTimeoutError) as error:
            reasons.append(f"the {role} does not answer: {_last_line(error)}")
            return entry
        entry.update(
            pid=pong["pid"],
            node_id=pong["node_id"],
            state=pong.get("state", "ok"),
            restarts=pong["restarts"],
            last_seen=clock.now(),
        )
        if role == "spark":
            entry.update(jvm_pid=pong["jvm_pid"], commits=pong["commits"])
        return entry

    def _look_at_spark(self, clock: SystemClock, reasons: list[str]) -> dict[str, Any]:
        """The Spark actor's entry, where the service has one."""
        try:
            actor_of(self.name, "spark")
        except (ValueError, WriterError):
            return {}
        entry = self._look_at("spark", clock, reasons)
        if entry["state"] == "starting":
            reasons.append("the JVM is starting: commits wait for it")
        return {"spark": entry}


def connect(
    name: str = "logs",
    producer_id: str | None = None,
    on_full: str = "block",
    queue_timeout_secs: float | None = None,
    schema_validation_mode: str | None = None,
) -> LogClient:
    """Join a running service from any process of its Ray.

    Args:
        name: the service's.
        producer_id: a stable identity for exactly-once over restarts; None for a new random one.
        on_full: what a call does that finds the window full: `block`, or `raise` at once.
        queue_timeout_secs: how long it blocks; None for what the service is configured with.
        schema_validation_mode: what becomes of this client's bad rows; None for what the service is configured with.

    Raises:
        WriterError: no Ray or no service of this name runs.
        WriterConfigurationError: an argument is wrong, or the service is of another version.
    """
    if on_full not in {"block", "raise"}:
        raise WriterConfigurationError(
            f"on_full is {on_full!r}, expected 'block' or 'raise'", suggestions=["leave it out to block"]
        )
    coordinator = _find(name)
    identity = uuid.uuid4().hex[:12]
    welcome = _patient_get(name, lambda: coordinator.enter.remote(identity, producer_id), CALL_TIMEOUT_S)
    if welcome["version"] != __version__:
        raise WriterConfigurationError(
            f"this client is sfwriter {__version__}, and service {name!r} runs {welcome['version']}",
            suggestions=[f"install sfwriter=={welcome['version']} here, or start the service again with {__version__}"],
        )
    changes: dict[str, Any] = {"producer_id": producer_id}
    if queue_timeout_secs is not None:
        changes["queue_timeout_secs"] = queue_timeout_secs
    if schema_validation_mode is not None:
        changes["schema_validation_mode"] = schema_validation_mode
    config = welcome["config"].replace(**changes)
    channel = RemoteChannel(
        name, coordinator, config, identity, welcome["window_bytes"], on_full=on_full, offer=welcome["offer"]
    )
    return LogClient(config, channel)


def _maintenance(name: str, config: WriterConfig) -> Any:
    """The maintenance actor, which begins where there is none."""
    return cast("Any", MaintenanceActor).options(**maintenance_options(name)).remote(name, config)


def _start_spark(name: str, config: WriterConfig) -> None:
    """Start the service's Spark actor, and wait until its JVM runs: before the service takes anything.

    Raises:
        WriterConfigurationError: what Spark needs is missing, or the service runs with another configuration.
    """
    try:
        coordinator = actor_of(name, "coordinator")
    except ValueError:
        coordinator = None
    if coordinator is not None:
        _check_same(name, config, _patient_get(name, coordinator.configuration.remote, START_TIMEOUT_S))
    actor = cast("Any", SparkActor).options(**spark_options(name)).remote(name, config)
    try:
        SparkCalls(name).wait_for("awake", FIRST_WAKE_S)
    except BaseException:
        if coordinator is None:
            ray.kill(actor)
        raise


def _find(name: str) -> Any:
    _check_name(name)
    how = f"start it: Service.start(config, name={name!r})"
    if not join_ray():
        raise WriterError(f"no Ray runs here, so no service {name!r}", suggestions=[how, "or set RAY_ADDRESS"])
    try:
        return actor_of(name, "coordinator")
    except ValueError:
        raise WriterError(
            f"no service {name!r} runs in the Ray at {ray.get_runtime_context().gcs_address}",
            suggestions=[how, "or set RAY_ADDRESS where it runs in another Ray"],
        ) from None


def _patient_get(name: str, call: Any, timeout: float) -> Any:
    """The answer to a remote call that only looks, waited for through a restart of its actor."""
    clock = SystemClock()
    deadline = clock.monotonic() + timeout
    while True:
        try:
            return answer_of(name, call, timeout=timeout)
        except (RayActorError, GetTimeoutError) as error:  # noqa: PERF203  it waits out a restart
            if "ray.kill" in str(error):  # nothing but the end of a service kills its coordinator for good
                raise WriterError(
                    "the service does not run any more: it was stopped",
                    suggestions=["start it again: Service.start(config, name=…)"],
                ) from error
            cause = getattr(error, "cause", None)
            if clock.monotonic() > deadline or isinstance(error, GetTimeoutError) or "creation task" in str(error):
                raise WriterError(
                    f"the coordinator does not answer: {_last_line(cause or error)}",
                    suggestions=["look at its log in Ray's folder"],
                ) from error
            clock.sleep(0.2)
        except RayTaskError as error:
            raise cause_of(error) from None


def _last_line(error: BaseException) -> str:
    """What an actor died of, without the stack above it."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip(" ^")]
    return lines[-1] if lines else type(error).__name__


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise WriterConfigurationError(
            f"the service's name is {name!r}, expected 1 to 64 letters, digits, '_' or '-'", suggestions=["e.g. 'logs'"]
        )


def _absolute(config: WriterConfig) -> WriterConfig:
    """The configuration with a warehouse that is the same folder for every process."""
    return config.replace(warehouse=warehouse_url(config))


def _check_same(name: str, asked: WriterConfig, running: WriterConfig) -> None:
    differing = {key: texts for key, texts in running.differences(asked).items() if key not in PRIVATE_TO_CLIENTS}
    if differing:
        problems = [f"{key}: runs with {theirs}, asked for {ours}" for key, (theirs, ours) in differing.items()]
        raise WriterConfigurationError(
            f"service {name!r} runs with another configuration: {'; '.join(problems)}",
            problems=problems,
            suggestions=["attach to it with its own configuration, stop it first, or choose another name"],
        )


def _is_consistent(entry: dict[str, Any]) -> bool:
    balanced = entry["accepted"] == entry["committed"] + entry["refused"] + entry["in_flight"]
    if not entry["known"] or entry["committing"]:
        return bool(balanced)
    return bool(balanced and entry["believed"] == entry["table"])
