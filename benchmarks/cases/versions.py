"""A small write late in a table's life, and with every check on."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.acks import BareCommits, distinct_rows
from benchmarks.cases.data import TABLE, rows_for
from benchmarks.cases.judging import TEN_RULES
from benchmarks.child import in_child
from benchmarks.live import count_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SAMPLE = 30
"""Writes of which the median is taken."""


def prepare(_folder: Path, scale: Scale) -> Mapping[str, Any]:
    """How old the table gets."""
    return {"late": rows_for(scale, full=5_000, quick=500, tiny=60)}


def run_aging(setting: Setting) -> Figures:
    """Writes of 7 rows at version 50 and at version 5,000."""
    late = setting.given["late"]
    figures = in_child("versions:aging", folder=str(setting.folder), late=late)
    found = count_rows(setting.folder / TABLE)
    expect(found == 7 * (late + SAMPLE), f"{found:,} rows, {7 * (late + SAMPLE):,} were written")
    return figures


def run_checked(setting: Setting) -> Figures:
    """Writes with ten rules, kept results and anomaly detection, by turns with bare commits."""
    return in_child("versions:checked", folder=str(setting.folder), count=60)


# ---------------------------------------------------------------- in the child


def aging(folder: str, late: int) -> Figures:
    """Median milliseconds, early and late."""
    from sfwriter import LogWriter, WriterConfig

    took = []
    with LogWriter(config=WriterConfig(warehouse=folder)) as writer:
        for call in range(late + SAMPLE):
            rows = distinct_rows(0, call)
            began = time.perf_counter()
            writer.write_log_rows(rows)
            took.append(1000 * (time.perf_counter() - began))
    early = min(50, late // 2)
    return {
        "early_p50_ms": statistics.median(took[early : early + SAMPLE]),
        "late_p50_ms": statistics.median(took[late:]),
    }


def checked(folder: str, count: int) -> Figures:
    """Median milliseconds of both, after a history that is long enough to be judged by."""
    from pathlib import Path as Folder

    from sfwriter import LogWriter, WriterConfig

    ours, bare = [], []
    commits = BareCommits(Folder(folder) / "bare")
    config = WriterConfig(
        warehouse=folder, validation_rules=_rules(), log_data_quality_results=True, enable_anomaly_detection=True
    )
    with LogWriter(config=config) as writer:
        for call in range(20 + count):
            rows = distinct_rows(0, call)
            began = time.perf_counter()
            result = writer.write_log_rows(rows)
            ours.append(1000 * (time.perf_counter() - began))
            expect(result["quality_results"] is not None, "no quality results")
            expect(result["anomalies"] is not None, "anomalies were not looked for")
            arrow = commits.arrow_of(rows)
            began = time.perf_counter()
            commits.write(arrow)
            bare.append(1000 * (time.perf_counter() - began))
            commits.reopen_now_and_then(call)
    return {"checked_p50_ms": statistics.median(ours[20:]), "bare_p50_ms": statistics.median(bare[20:])}


def _rules() -> Mapping[str, Any]:
    # Small runs have no times of their own.
    return {column: rules for column, rules in TEN_RULES.items() if column != "end_time"}


CASE = Case(
    "versions",
    "7-row writes at version 5,000 beside version 50, and with rules, kept results and anomalies beside bare commits",
    (Peer("aging", run_aging), Peer("checked", run_checked)),
    (
        Verdict(
            "late / early", ("aging", "late_p50_ms"), ("aging", "early_p50_ms"), target=1.5, at_least=False
        ),
        Verdict(
            "every check on / bare commit", ("checked", "checked_p50_ms"), ("checked", "bare_p50_ms"), target=2.0,
            at_least=False,
        ),
    ),
    prepare,
    rounds=1,
)  # fmt: skip
