"""Making a session, and saying what is missing before the JVM does."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sfwriter
from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterConfigurationError
from sfwriter.spark import installed


def java(folder, says):
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    return {"JAVA_HOME": str(folder), "PATH": ""}


def test_a_machine_without_java_is_told_what_to_install(tmp_path):
    with pytest.raises(WriterConfigurationError, match="no Java") as caught:
        installed.check_java({"PATH": str(tmp_path)})
    assert "apt-get install openjdk-17" in str(caught.value)
    with pytest.raises(WriterConfigurationError, match="no Java"):
        installed.check_java({"JAVA_HOME": str(tmp_path), "PATH": ""})


@pytest.mark.parametrize(("says", "major"), [('openjdk version "1.8.0_392"', 8), ('openjdk version "11.0.2"', 11)])
def test_a_java_that_is_too_old_is_named(tmp_path, says, major):
    with pytest.raises(WriterConfigurationError, match=f"Java {major} .* too old: Spark needs 17"):
        installed.check_java(java(tmp_path, says))


@pytest.mark.parametrize("says", ['openjdk version "17.0.15" 2025-04-15', 'java version "21" 2023-09-19 LTS'])
def test_a_java_that_will_do_is_told_by_its_version(tmp_path, says):
    assert installed.check_java(java(tmp_path, says)) in (17, 21)


def test_a_java_that_says_nothing_is_no_java(tmp_path):
    with pytest.raises(WriterConfigurationError, match="does not tell its version"):
        installed.check_java(java(tmp_path, "cannot load"))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"pyspark": "4.2.0", "delta-spark": "3.2.0", "pandas": "2.2.0"}, "delta-spark 3.2.0 and pyspark 4.2.0"),
        ({"pyspark": "3.5.1", "delta-spark": "4.4.0", "pandas": "2.2.0"}, "pyspark 3.5.1"),
        ({"pyspark": "4.2.0", "delta-spark": "4.4.0", "pandas": "3.0.0"}, "pandas 3.0.0"),
        ({"pyspark": "4.2.0", "pandas": "2.2.0"}, "delta-spark is not installed"),
        ({}, "pyspark is not installed"),
    ],
)
def test_versions_that_do_not_go_together_are_named_with_the_command_that_helps(found, says, monkeypatch):
    def version(name):
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(WriterConfigurationError, match=says) as caught:
        installed.check_versions()
    assert "pip install" in str(caught.value)


@pytest.mark.parametrize("thing", ["local[2]", 5, object()])
def test_what_is_no_session_is_refused(thing):
    with pytest.raises(WriterConfigurationError, match="expected a SparkSession"):
        LogWriter(thing)
    with pytest.raises(WriterConfigurationError, match="expected a SparkSession"):
        sfwriter.spark.examine(thing)


def test_a_setting_without_sparks_name_is_refused():
    with pytest.raises(WriterConfigurationError, match="'memory'"):
        sfwriter.spark.session(memory="4g")


def test_a_session_that_runs_is_given_back_and_never_changed(spark):
    before = dict(spark.sparkContext.getConf().getAll())
    assert sfwriter.spark.session() is spark
    assert sfwriter.spark.session("other", **{"spark.sql.shuffle.partitions": 2}) is spark
    with pytest.raises(WriterConfigurationError, match=r"spark.sql.shuffle.partitions is '2', not '99'"):
        sfwriter.spark.session(**{"spark.sql.shuffle.partitions": 99})
    assert dict(spark.sparkContext.getConf().getAll()) == before


def test_a_session_that_will_do_lacks_nothing(spark):
    found = sfwriter.spark.examine(spark)
    assert (found.ready, found.connect, found.problems, dict(found.add)) == (True, False, (), {})
    assert found.spark_version == "4.2.0"


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True, text=True, timeout=240, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(280)
def test_a_session_without_delta_is_told_what_to_add(spark):
    told = run(
        """
        import sfwriter
        from pyspark.sql import SparkSession
        from sfwriter import LogWriter, WriterConfig
        from sfwriter.exceptions import WriterConfigurationError

        plain = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        found = sfwriter.spark.examine(plain)
        print(found.ready, sorted(found.add))
        for attempt in (lambda: LogWriter(plain), sfwriter.spark.session):
            try:
                attempt()
            except WriterConfigurationError as error:
                print(error.code, str(error))
        print(plain.range(3).count())
        plain.stop()
        print(sfwriter.spark.examine(plain).problems)
        """
    )
    assert "False ['spark.jars.packages', 'spark.sql.catalog.spark_catalog', 'spark.sql.extensions']" in told
    assert told.count("session_without_delta This SparkSession cannot be used") == 2
    assert "io.delta:delta-spark_4.2_2.13:4.4.0" in told
    assert "\n3\n" in told
    assert "was stopped" in told


@pytest.mark.timeout(280)
def test_a_session_that_was_stopped_or_died_is_an_error_that_says_so_and_nothing_acknowledged_is_lost(spark, tmp_path):
    told = run(
        """
        import os, signal, sys
        import sfwriter
        from sfwriter import LogWriter, WriterConfig
        from sfwriter.exceptions import WriterConfigurationError, WriterTableError

        conf = {"spark.sql.shuffle.partitions": "1", "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
        config = WriterConfig(warehouse=sys.argv[1], producer_id="p", max_retries=1, retry_delay_secs=0)
        row = {"phase": "gold", "step_name": "s"}

        def attempt(writer):
            try:
                writer.write_log_rows([row])
            except WriterTableError as error:
                print(error.code, error.outcome_unknown, error.message)

        session = sfwriter.spark.session("first", "local[1]", **conf)
        writer = LogWriter(session, config)
        print("written", writer.write_log_rows([row])["batch_id"])
        session.stop()
        attempt(writer)
        print("committed", writer.committed_sequence)
        try:
            LogWriter(session, config)
        except WriterConfigurationError as error:
            print(error.code)
        second = sfwriter.spark.session("second", "local[1]", **conf)
        with LogWriter(second, config) as again:
            print("written", again.write_log_rows([row])["batch_id"])
            os.kill(second.sparkContext._gateway.proc.pid, signal.SIGKILL)
            second.sparkContext._gateway.proc.wait()
            attempt(again)
            print("committed", again.committed_sequence)
        os._exit(0)
        """,
        tmp_path / "warehouse",
    )
    lines = told.splitlines()
    assert lines[0] == "written p:0"
    assert lines[1].startswith("session_stopped False The SparkSession of this writer was stopped")
    assert lines[2:5] == ["committed 0", "session_stopped", "written p:1"]
    assert lines[5].startswith("session_")
    assert lines[6] == "committed 1"


def test_a_writer_without_a_session_takes_one_where_its_engine_is_spark(spark, tmp_path):
    config = WriterConfig(engine="spark", warehouse=str(tmp_path), enable_optimization=False)
    with LogWriter(config=config) as writer:
        writer.write_log_rows([{"phase": "gold", "step_name": "s"}])
        assert writer.get_table_info()["engine"] == "delta-spark"
    assert not spark.sparkContext._jsc.sc().isStopped()
    with pytest.raises(WriterConfigurationError, match="other settings"):
        LogWriter(config=config.replace(spark_conf={"spark.driver.memory": "3g"}))


def test_a_session_beside_another_engine_is_a_mistake_that_is_told(spark):
    with pytest.raises(WriterConfigurationError, match="engine is 'delta-rs', and a SparkSession was given"):
        LogWriter(spark, WriterConfig(engine="delta-rs"))
