"""The state machine alone: no rows, no files, no threads."""

from __future__ import annotations

import time

from benchmarks.case import Case, Figures, Peer, Setting, Verdict, expect
from benchmarks.cases.data import rows_for
from benchmarks.child import in_child

PRODUCERS, WINDOW = 64, 2_000


def run_core(setting: Setting) -> Figures:
    """Batches through admission, staging, commit and answer."""
    batches = rows_for(setting.scale, full=400_000, quick=100_000, tiny=2_000)
    figures = in_child("core:through_the_core", batches=batches)
    expect(figures["batches"] == batches, f"{figures['batches']:,.0f} of {batches:,} batches were acknowledged")
    return {"batches_per_s": figures["batches_per_s"], "secs": figures["secs"]}


def through_the_core(batches: int) -> Figures:
    """The library's own measure of its core."""
    from sfwriter.testing.throughput import core_throughput

    began = time.perf_counter()
    rate = core_throughput(batches, producers=PRODUCERS, window=WINDOW)
    return {"batches_per_s": float(rate), "batches": float(batches), "secs": time.perf_counter() - began}


CASE = Case(
    "core",
    "the state machine alone, from submission to acknowledgement, 64 producers by turns",
    (Peer("core", run_core),),
    (Verdict("batches a second", ("core", "batches_per_s"), how="value", target=50_000, unit="batches/s"),),
)
