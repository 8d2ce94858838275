"""What holds for all tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import sfwriter
from sfwriter.exceptions import WriterConfigurationError
from sfwriter.spark.installed import DELTA_CONF, delta_jars

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


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="session")
def remote(spark, tmp_path_factory):
    """The one session of Spark Connect, of a server in a process of its own."""
    pytest.importorskip("grpc")
    import pyspark
    from pyspark.sql.connect.session import SparkSession

    folder = tmp_path_factory.mktemp("connect")
    port = _free_port()
    conf = {
        **SPARK_CONF,
        **DELTA_CONF,
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    home = Path(pyspark.__file__).parent
    command = [str(home / "bin" / "spark-submit"), "--master", "local[2]", "--jars", ",".join(delta_jars())]
    for name, value in conf.items():
        command += ["--conf", f"{name}={value}"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [str(next((home / "jars").glob("spark-connect_*.jar")))]
    environ = {"PYSPARK_PYTHON": sys.executable, **os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environ, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while True:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, "the server of Spark Connect does not come up"
            time.sleep(0.2)
        session = SparkSession.builder.remote(f"sc://localhost:{port}").create()
        yield session
        session.stop()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
