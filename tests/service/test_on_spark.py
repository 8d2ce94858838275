"""A service whose commits and maintenance are those of one JVM, which dies in every way there is.

One service and two clients are under load through the whole file: starting a JVM takes longer than killing it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import ray
from deltalake import DeltaTable

from actors import Service, connect
from actors.options import NAMESPACE, actor_name
from actors.spark_host import MARK
from benchmarks.crash.load import batch, frozen, load, wait_for
from sfwriter import WriterConfig
from sfwriter.exceptions import WriterConfigurationError, WriterValidationError
from sfwriter.spark.installed import check_java, check_versions, delta_jars
from tests.service.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.crash.load import Load

pytestmark = [pytest.mark.ray, pytest.mark.spark, pytest.mark.kill, pytest.mark.timeout(300)]

ROW = {"phase": "gold", "step_name": "s"}
LIGHT = {
    "spark.master": "local[2]",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.level=ERROR",
}


def jvms() -> list[int]:
    """The JVMs of services, by what their command line says."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(text.startswith(f"{MARK}=") for text in process.info["cmdline"] or ())
    ]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> WriterConfig:
    """Of the service. `REQUIRE_SPARK=1` makes it an error where there can be no Spark."""
    try:
        check_versions()
        check_java()
        delta_jars()
    except WriterConfigurationError as error:
        if os.environ.get("REQUIRE_SPARK", "0") not in ("", "0"):
            raise
        pytest.skip(f"no Spark here: {error.message}")
    return WriterConfig(
        warehouse=str(tmp_path_factory.mktemp("jvm")),
        engine="spark",
        spark_conf=LIGHT,
        memory_fraction=0.02,
        parallel_write_threads=2,
        retry_delay_secs=0.1,
        max_retries=8,
    )


@pytest.fixture(scope="module")
def working(ray_address: str, config: WriterConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """A service under load."""
    table = tmp_path_factory.getbasetemp() / config.warehouse / "analytics/pipeline_logs"
    with Service.start(config, name="jvm") as service, load(service, tmp_path_factory.mktemp("clients"), table) as it:
        yield it
    assert jvms() == []


def host(working: Load) -> dict[str, Any]:
    """What the Spark actor says of itself, as soon as it has a JVM."""
    found: dict[str, Any] = wait_for(
        lambda: (it := working.service.health()["spark"])["state"] == "ok" and it, "a JVM that commits"
    )
    return found


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    victim = psutil.Process(pid)
    victim.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.wait(10)


def entries(table: Path) -> int:
    """How many entries the log has."""
    return sum(1 for path in (table / "_delta_log").glob("*.json"))


def test_rows_are_committed_by_one_jvm_and_staged_without_one(working: Load) -> None:
    working.wait_for_progress()

    assert jvms() == [host(working)["jvm_pid"]]
    newest = DeltaTable(working.table).history(1)[0]
    assert newest["engineInfo"] == "sfwriter"
    # As beside every entry that a JVM makes or names.
    assert (working.table / "_delta_log" / f"{newest['version'] - 1:020}.crc").exists()
    java = {process.ppid() for process in map(psutil.Process, jvms())}
    assert java == {host(working)["pid"]}
    with connect("jvm") as client:
        info = client.get_table_info()
    assert (info["engine"], info["engine_road"]) == ("delta-spark", "in_place")
    memory = wait_for(lambda: working.service.metrics()["actor_memory_bytes"].get("spark"), "the JVM's memory")
    assert memory > 100 << 20
    assert working.check() > 0


def test_maintenance_goes_through_the_same_jvm_while_rows_come(working: Load) -> None:
    orphan = working.table / "part-00000-of-nobody.parquet"
    orphan.write_bytes(b"PAR1")
    long_ago = time.time() - 30 * 86_400
    os.utime(orphan, (long_ago, long_ago))

    with connect("jvm") as client:  # which must not do it beside the JVM, either
        optimized = client.optimize_table(enable_partitioning=True)
    done = working.service.maintain({"vacuum": True, "checkpoint": True})

    assert optimized["optimizations_applied"] == ["partitioning"]
    assert done["results"]["vacuum"]["files_deleted"] == [orphan.name]
    assert not orphan.exists()
    rewritten = [entry for entry in DeltaTable(working.table).history() if entry["operation"] == "OPTIMIZE"]
    assert rewritten
    assert all("Spark" in entry["engineInfo"] for entry in rewritten)
    working.wait_for_progress()
    working.check()


def test_another_engine_for_a_running_service_is_refused(working: Load, config: WriterConfig) -> None:
    with pytest.raises(WriterConfigurationError, match="engine"):
        Service.start(config.replace(engine="delta-rs"), name="jvm")
    with pytest.raises(WriterConfigurationError, match="spark_conf"):
        Service.start(config.replace(spark_conf={}), name="jvm")
    assert Service.start(config, name="jvm").health()["status"] == "ok"


def test_the_loop_answers_while_the_jvm_does_not(working: Load) -> None:
    with frozen(host(working)["jvm_pid"]):
        wait_for(lambda: working.service.health()["spark"]["commits"], "a commit in the frozen JVM")
        health = working.service.health()
        assert (health["status"], health["coordinator"]["state"]) == ("ok", "ok")
    working.wait_for_progress()
    working.check()


def test_a_jvm_that_dies_in_the_middle_of_a_commit_costs_no_row_and_doubles_none(working: Load) -> None:
    before = host(working)
    os.kill(before["jvm_pid"], signal.SIGSTOP)
    wait_for(lambda: working.service.health()["spark"]["commits"], "a commit in the frozen JVM")
    kill(before["jvm_pid"])

    working.wait_for_progress()
    working.check()
    after = host(working)
    assert (after["restarts"], jvms()) == (1, [after["jvm_pid"]])
    assert after["jvm_pid"] != before["jvm_pid"]


def test_a_jvm_that_dies_when_a_commit_has_just_landed_costs_no_row_and_doubles_none(working: Load) -> None:
    pid = host(working)["jvm_pid"]
    known = entries(working.table)
    while entries(working.table) == known:
        time.sleep(0)
    kill(pid)

    working.wait_for_progress()
    working.check()


def test_a_jvm_whose_process_and_coordinator_died_lands_nothing_late(working: Load) -> None:
    before = host(working)
    os.kill(before["jvm_pid"], signal.SIGSTOP)
    wait_for(lambda: working.service.health()["spark"]["commits"], "a commit in the frozen JVM")
    kill(before["pid"])  # the JVM, frozen, does not notice
    kill(working.coordinator_pid())

    after = host(working)
    assert not psutil.pid_exists(before["jvm_pid"])
    assert jvms() == [after["jvm_pid"]]
    working.wait_for_progress()
    working.check()


def test_in_the_end_all_is_settled_and_reconciled(working: Load) -> None:
    working.finish()

    assert working.check() > 0
    reconciled = working.service.reconcile()
    assert reconciled["consistent"], reconciled
    assert all(entry["in_flight"] == 0 for entry in reconciled["producers"].values())


def test_the_same_rows_sent_again_to_another_life_are_known(working: Load) -> None:
    producer = working.clients[0].producer_id
    with connect("jvm", producer_id=producer) as client:
        last = client.committed_sequence
        assert last is not None
        assert client.write_log_rows(batch(producer, last), sequence=last)["already_written"] is True


def test_a_constraint_of_the_table_is_kept_by_sparks_own_writer(working: Load) -> None:
    DeltaTable(working.table).alter.add_constraint({"few": "rows_written IS NULL OR rows_written < 1000000000000"})
    with connect("jvm") as client:
        with pytest.raises(WriterValidationError, match="few"):
            client.write_log_rows([{**ROW, "rows_written": 2_000_000_000_000}])
        before = client.get_table_info()["row_count"]
        client.write_log_rows([{**ROW, "rows_written": 7}])
        info = client.get_table_info()
    assert (info["row_count"], info["engine_road"]) == (before + 1, "dataframe")
    assert "constraint" in info["engine_road_reason"].lower()


def test_what_only_spark_can_read_is_read_through_the_jvm(working: Load) -> None:
    table = DeltaTable(working.table)
    entry = working.table / "_delta_log" / f"{table.version() + 1:020}.json"
    features = '{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],'
    entry.write_text(features + '"writerFeatures":["deletionVectors","checkConstraints","appendOnly","invariants"]}}\n')
    with connect("jvm") as client:
        rows = client.get_table_info()["row_count"]
        report = client.generate_summary_report(days=36_000)
        client.write_log_rows([ROW])
        assert client.get_table_info()["row_count"] == rows + 1
    assert report["total_executions"] == rows


# ---------------------------------------------------------------- starts that fail


def test_a_start_that_spark_refuses_says_why_and_leaves_nothing(ray_address: str, config: WriterConfig) -> None:
    with pytest.raises(WriterConfigurationError, match=r"driver.memory.*their names begin with 'spark\.'"):
        Service.start(config.replace(spark_conf={"driver.memory": "1g"}), name="jvm-wrong")
    for role in ("coordinator", "spark"):
        with pytest.raises(ValueError, match="Failed to look up"):
            ray.get_actor(actor_name("jvm-wrong", role), namespace=NAMESPACE)


WITHOUT_JAVA = """
import sys, ray
from actors import Service
from sfwriter import WriterConfig
from sfwriter.exceptions import WriterConfigurationError
try:
    Service.start(WriterConfig(engine="spark", warehouse=sys.argv[1]), name="no-java")
except WriterConfigurationError as error:
    print(error)
print("ray", ray.is_initialized())
"""


def test_without_java_a_start_is_one_sentence_and_no_ray_is_started(config: WriterConfig, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY")}
    # To the Ray of these tests it is a stranger, so it would start its own.
    environ |= {"JAVA_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAVA, str(tmp_path)],
        env=environ, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    sentence, *advice, ray_runs = done.stdout.splitlines()
    assert sentence.startswith("There is no Java on this machine")
    assert "apt-get install openjdk-17" in advice[0]
    assert ray_runs == "ray False"
