"""Whether a SparkSession can serve the Spark engine, and what it lacks.

Receives: any session, classic or Connect.
Produces: a `Readiness`; `check` turns what is missing into a `WriterConfigurationError`.
Guarantees: the session is only asked; nothing is set, run or stopped.
Never does: import Spark for something that is no session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterConfigurationError
from sfwriter.spark.installed import CATALOG, DELTA_CONF, EXTENSION, coordinates

if TYPE_CHECKING:
    from collections.abc import Mapping

_OLDEST_SPARK = (4, 2)
_DELTA_OF = {"4.2": "4.4.0"}


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a session has.

    Attributes:
        ready: whether the Spark engine can work with it.
        connect: whether it is a Spark Connect session, which has no JVM to talk to.
        spark_version: of the server; None where the session no longer answers.
        problems: what is missing, a sentence each; empty where it is ready.
        add: settings to start the session with, by name. They cannot be set on a session that runs.
    """

    ready: bool
    connect: bool
    spark_version: str | None
    problems: tuple[str, ...] = ()
    add: Mapping[str, str] = field(default_factory=dict)


def is_session(thing: Any) -> bool:
    """Whether it is a SparkSession of either kind; loads nothing."""
    return any(
        kind.__name__ == "SparkSession" and kind.__module__.startswith("pyspark.sql") for kind in type(thing).__mro__
    )


def is_connect(spark: Any) -> bool:
    """Whether a session is one of Spark Connect."""
    return any(kind.__module__.startswith("pyspark.sql.connect") for kind in type(spark).__mro__)


def is_stopped(spark: Any) -> bool:
    """Whether a session was stopped. What cannot be asked counts as stopped."""
    try:
        if is_connect(spark):
            return bool(spark.is_stopped)
        context = spark.sparkContext._jsc  # noqa: SLF001  PySpark has no public way to ask
        return context is None or bool(context.sc().isStopped())
    except Exception:  # noqa: BLE001  a gateway that is gone raises many kinds
        return True


def examine(spark: Any) -> Readiness:
    """What the session has, and what is missing.

    Example:
        >>> sfwriter.spark.examine(spark).problems  # doctest: +SKIP
        ()

    Raises:
        WriterConfigurationError: it is no SparkSession at all.
    """
    if not is_session(spark):
        raise WriterConfigurationError(
            f"spark is a {type(spark).__name__}, expected a SparkSession",
            suggestions=[
                "leave spark out: LogWriter(config=config) writes the same tables without a JVM",
                "or make a session: sfwriter.spark.session()",
            ],
        )
    connect = is_connect(spark)
    if is_stopped(spark):
        return Readiness(False, connect, None, ("the SparkSession was stopped, or its JVM is gone",))
    version = str(spark.version)
    problems: list[str] = []
    add: dict[str, str] = {}
    line = tuple(int(part) for part in version.split(".")[:2])
    delta = _DELTA_OF.get(".".join(map(str, line)))
    if line < _OLDEST_SPARK:
        problems.append(f"Spark is {version}, and 4.2 is the oldest that sfwriter works with")
    if not connect and not _has_delta(spark):
        problems.append("Delta's jars are not on Spark's class path")
        if delta:
            add["spark.jars.packages"] = coordinates(version, delta)
    extensions = _setting(spark, "spark.sql.extensions")
    if EXTENSION not in extensions:
        problems.append(f"spark.sql.extensions lacks {EXTENSION}")
        add["spark.sql.extensions"] = ",".join(filter(None, [extensions, EXTENSION]))
    catalog = _setting(spark, "spark.sql.catalog.spark_catalog")
    if not catalog:
        problems.append(f"spark.sql.catalog.spark_catalog is not set to {CATALOG}")
        add["spark.sql.catalog.spark_catalog"] = DELTA_CONF["spark.sql.catalog.spark_catalog"]
    return Readiness(not problems, connect, version, tuple(problems), add)


def check(spark: Any) -> Readiness:
    """As `examine`; raises `WriterConfigurationError` where something is missing."""
    found = examine(spark)
    if found.ready:
        return found
    settings = ", ".join(f".config({name!r}, {value!r})" for name, value in found.add.items())
    if found.spark_version is None:
        advice = ["Make a new session, and a new LogWriter with it; rows that were acknowledged are in the table."]
    else:
        advice = [
            *([f"Start the session with: {settings}"] if settings else []),
            "Or take sfwriter.spark.session(), which has all of it.",
        ]
    raise WriterConfigurationError(
        f"This SparkSession cannot be used: {'; '.join(found.problems)}.",
        problems=list(found.problems),
        context={"add": dict(found.add), "spark_version": found.spark_version},
        suggestions=advice,
        code="session_stopped" if found.spark_version is None else "session_without_delta",
    )


def _has_delta(spark: Any) -> bool:
    try:
        spark._jvm.java.lang.Class.forName(  # noqa: SLF001  there is no other road to the class path
            "org.apache.spark.sql.delta.DeltaLog",
            True,
            spark._jsparkSession.getClass().getClassLoader(),  # noqa: SLF001  same
        )
    except Exception:  # noqa: BLE001  py4j wraps whatever class loading raises
        return _by_context_loader(spark)
    return True


def _by_context_loader(spark: Any) -> bool:
    """Jars that were given by `spark.jars` are in the loader of the thread."""
    try:
        jvm = spark._jvm  # noqa: SLF001  there is no other road to the class path
        jvm.java.lang.Class.forName(
            "org.apache.spark.sql.delta.DeltaLog", True, jvm.java.lang.Thread.currentThread().getContextClassLoader()
        )
    except Exception:  # noqa: BLE001  py4j wraps whatever class loading raises
        return False
    return True


def _setting(spark: Any, name: str) -> str:
    return str(spark.conf.get(name, "") or "")
