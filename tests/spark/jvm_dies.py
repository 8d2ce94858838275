"""A process whose JVM is killed while it writes, several times: what it was told each time, and what it then did.

Prints one JSON object. A process of its own, because PySpark has one JVM in each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pyspark import SparkContext

import sfwriter
from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterError

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = {
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.level=ERROR",
}
ROW = {"phase": "gold", "step_name": "s"}


def jvm() -> int:
    return int(SparkContext._gateway.proc.pid)


def kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    # A zombie until PySpark's own handle is asked.
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def outcome(writer: LogWriter, number: int) -> dict[str, Any]:
    """What a write ended in."""
    try:
        done = writer.write_log_rows([{**ROW, "step_name": f"s{number}"}] * 3, sequence=number)
    except WriterError as error:
        return {"code": error.code, "said": error.message, "unknown": getattr(error, "outcome_unknown", False),
                "advice": error.suggestions}  # fmt: skip
    return {"written": done["rows_written"], "already": done["already_written"]}


def killed_while(writer: LogWriter, number: int, is_time: Callable[[], bool], before: Callable[[], object]) -> Any:
    """Write while another thread waits for the moment, and kills the JVM then."""
    pid = jvm()
    before()

    def blow() -> None:
        while not is_time():
            time.sleep(0)
        kill(pid)

    thread = threading.Thread(target=blow)
    thread.start()
    found = outcome(writer, number)
    thread.join()
    return found


def main(warehouse: str) -> None:
    """Write, lose the JVM, look, and go on with another one."""
    config = WriterConfig(warehouse=warehouse, producer_id="p", retry_delay_secs=0, enable_optimization=False)
    table = Path(warehouse, "analytics/pipeline_logs")
    log = table / "_delta_log"
    told: dict[str, Any] = {}

    def files() -> int:
        return len(list(table.glob("*.parquet")))

    # Frozen before the commit, and dead before it could land: the file is staged, the call is in the JVM.
    spark = sfwriter.spark.session("dies", "local[2]", **CONF)
    with LogWriter(spark, config) as writer:
        outcome(writer, 0)
        staged, pid = files(), jvm()
        told["before"] = killed_while(writer, 1, lambda: files() > staged, lambda: os.kill(pid, signal.SIGSTOP))
        told["committed_before"] = writer.committed_sequence
        told["same_writer"] = outcome(writer, 1)

    # Another session in the same process, and another writer: killed as soon as the commit is seen in the log's folder,
    # be it as a file that is still to be renamed.
    spark = sfwriter.spark.session("dies", "local[2]", **CONF)
    with LogWriter(spark, config) as writer:
        told["again"] = outcome(writer, 1)
        seen = set(log.iterdir())
        told["middle"] = killed_while(
            writer, 2, lambda: any(".json" in path.name for path in set(log.iterdir()) - seen), lambda: None
        )
        told["committed_middle"] = writer.committed_sequence

    # Where Spark writes the rows once more, killed while it does so.
    spark = sfwriter.spark.session("dies", "local[2]", **CONF)
    spark.sql(f"ALTER TABLE delta.`{table}` ADD CONSTRAINT few CHECK (rows_written IS NULL OR rows_written < 1000)")
    with LogWriter(spark, config) as writer:
        told["third"] = outcome(writer, 2)
        known = files()
        # One file is staged, the next one is Spark's.
        told["dataframe"] = killed_while(writer, 3, lambda: files() > known + 1, lambda: None)

    # And in the end all of it once more, by the embedded engine's eyes.
    spark = sfwriter.spark.session("dies", "local[2]", **CONF)
    with LogWriter(spark, config) as writer:
        told["all"] = [outcome(writer, number) for number in range(4)]
        rows = writer._log_table.scan(["step_name"]).read_all()["step_name"].to_pylist()
    told["rows"] = {name: rows.count(name) for name in sorted(set(rows))}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
