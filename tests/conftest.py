"""What holds for all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

import sfwriter
from sfwriter.exceptions import WriterConfigurationError

# A busy machine is slow now and then, which says nothing of what is tested.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

_WITH_RAY = {"benchmarks", "cli", "demo", "deploy", "service"}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which `make unit` uses and a single test need not
def pytest_xdist_make_scheduler(config, log):
    """What shares one Ray, or one Spark, stays on one of the processes that `make unit` runs side by side.

    A Ray finds others on its machine, so there must never be two at a time that do not know of each other.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if "spark" in nodeid and not nodeid.startswith("tests/service/"):
                return "spark"
            return "ray" if nodeid.split("/")[1] in _WITH_RAY else nodeid

    return Together(config, log)


# ---------------------------------------------------------------- Spark

SPARK_CONF = {
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.leafNodeDefaultParallelism": "1",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.ui.showConsoleProgress": "false",
    # Compiling code for each of thousands of tiny queries is a third of the processor time.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    # Not UTC: results must not depend on it.
    "spark.sql.session.timeZone": "America/St_Johns",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.level=ERROR",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """The one SparkSession of the whole run. `REQUIRE_SPARK=1` makes it an error where there can be none."""
    try:
        session = sfwriter.spark.session(
            "sfwriter-tests",
            "local[2]",
            **SPARK_CONF,
            **{"spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark-warehouse"))},
        )
    except WriterConfigurationError as error:
        if os.environ.get("REQUIRE_SPARK", "0") not in ("", "0"):
            raise
        pytest.skip(f"no Spark here: {error.message}")
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
