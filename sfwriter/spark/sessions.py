"""A tuned SparkSession with Delta ready.

Receives: a name, a master, settings.
Produces: a classic SparkSession of this process.
Guarantees: what this machine lacks is said in a sentence before a JVM is started; a session that is already
    running is never changed: it is given back where it will do, and refused where it will not.
Never does: stop a session.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterConfigurationError
from sfwriter.spark.installed import DELTA_CONF, EXTENSION, check_java, check_versions, delta_jars
from sfwriter.spark.readiness import check, is_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TUNED: Mapping[str, str] = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.shuffle.partitions": "4",
    # A log table's state is small: the default of 50 partitions is 50 tasks at each look.
    "spark.databricks.delta.snapshotPartitions": "2",
    # VACUUM lists folders in 10,000 tasks otherwise: 45 to 95 s instead of 3 to 5.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
}
"""For one machine. What `conf` says goes first."""


def session(app_name: str = "sfwriter", master: str = "local[*]", **conf: Any) -> Any:
    """A SparkSession with Delta ready, tuned for log tables on one machine.

    The first call on a machine fetches Delta's jars through Spark's own Ivy (20 to 40 s); later ones take them
    from Ivy's cache and need no network. A session that runs in this process already is given back as it is.

    Args:
        app_name: as Spark shows it.
        master: e.g. `local[2]`, `spark://host:7077`. A setting `spark.master` goes first.
        **conf: Spark settings by their names: `session(**{"spark.driver.memory": "4g"})`.

    Raises:
        WriterConfigurationError: Java, PySpark, Delta or its jars are missing or do not go together; a setting
            has no Spark name; or a session is running that lacks Delta or has other settings.
    """
    settings = _checked(conf)
    master = settings.get("spark.master", master)
    check_versions()
    _forget_the_dead()
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession() or SparkSession._instantiatedSession  # noqa: SLF001  any thread's
    if running is not None and not is_stopped(running):
        return _as_it_is(running, settings)
    check_java()
    jars = delta_jars(settings.get("spark.jars.ivy"))
    given = settings.get("spark.jars")
    settings["spark.jars"] = ",".join([*jars, *([given] if given else [])])
    extensions = settings.get("spark.sql.extensions", "")
    if EXTENSION not in extensions:
        settings["spark.sql.extensions"] = ",".join(filter(None, [extensions, EXTENSION]))
    builder = SparkSession.builder.appName(app_name).master(master)
    for name, value in {**DELTA_CONF, **TUNED, **settings}.items():
        builder = builder.config(name, value)
    with _this_python(master):
        made = builder.getOrCreate()
    check(made)
    return made


def _forget_the_dead() -> None:
    """Have PySpark start another JVM where the one that it knows has died, which it does not by itself."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    process = getattr(SparkContext._gateway, "proc", None)  # noqa: SLF001  PySpark has no public way to ask
    if process is None or process.poll() is None:
        return
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None  # noqa: SLF001  same
    SparkSession._instantiatedSession = SparkSession._activeSession = None  # noqa: SLF001  same


@contextmanager
def _this_python(master: str) -> Iterator[None]:
    """Have a local Spark's tasks run by this interpreter: by default it takes the `python3` of the path."""
    if not master.startswith("local") or "PYSPARK_PYTHON" in os.environ:
        yield
        return
    os.environ["PYSPARK_PYTHON"] = sys.executable
    try:
        yield
    finally:
        del os.environ["PYSPARK_PYTHON"]


def _checked(conf: Mapping[str, Any]) -> dict[str, str]:
    problems = [name for name in conf if not name.startswith("spark.")]
    if problems:
        raise WriterConfigurationError(
            f"{', '.join(map(repr, problems))}: no setting of Spark; their names begin with 'spark.'",
            problems=problems,
            suggestions=['Give them by their whole names: session(**{"spark.driver.memory": "4g"})'],
        )
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in conf.items()}


def _as_it_is(running: Any, settings: Mapping[str, str]) -> Any:
    check(running)
    other = {name: found for name in settings if (found := running.conf.get(name, None)) != settings[name]}
    if other:
        named = ", ".join(f"{name} is {found!r}, not {settings[name]!r}" for name, found in other.items())
        raise WriterConfigurationError(
            f"A SparkSession is running in this process with other settings: {named}.",
            context={"running": other},
            suggestions=["Use it without these settings, or stop it first: spark.stop()"],
            code="session_running",
        )
    return running
