"""The cases, by name, in the order in which they run."""

from __future__ import annotations

from benchmarks.cases import (
    acks,
    backfill,
    care,
    core,
    crowd,
    dicts,
    judging,
    memory,
    questions,
    service,
    spark,
    start,
    versions,
)

CASES = {
    case.name: case
    for case in (
        backfill.CASE,
        service.BACKFILL,
        core.CASE,
        start.IMPORT,
        start.COLD,
        acks.THREADS,
        acks.COMMIT,
        service.ACKS,
        crowd.CLIENTS,
        crowd.SMALL,
        crowd.ANSWERS,
        crowd.MEMORY,
        versions.CASE,
        memory.CASE,
        *dicts.CASES,
        judging.RULES,
        judging.ANOMALIES,
        care.CASE,
        questions.REPORTS,
        questions.EXPORT,
        spark.CASE,
    )
}
