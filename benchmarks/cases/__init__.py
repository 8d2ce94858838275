"""The cases, by name, in the order in which they run."""

from __future__ import annotations

from benchmarks.cases import acks, backfill, core, memory, service, start

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
        memory.CASE,
    )
}
