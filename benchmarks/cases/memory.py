"""The most memory of a backfill with a small budget, at two lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict
from benchmarks.cases.data import TABLE, check_table, make_sources
from benchmarks.child import in_child
from sfwriter.limits import usable_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

BUDGET_BYTES = 256 << 20
ALLOWED_ABOVE = 250
"""MiB above the budget."""

LENGTHS = {
    Scale.FULL: {"short": 1_000_000, "long": 3_000_000},
    Scale.QUICK: {"short": 200_000, "long": 600_000},
    Scale.TINY: {"short": 5_000, "long": 15_000},
}


def prepare(folder: Path, scale: Scale) -> Mapping[str, Any]:
    """Sources of both lengths."""
    given = {}
    for name, rows in LENGTHS[scale].items():
        (folder / name).mkdir()
        given[name] = make_sources(folder / name, rows)
    return given


def run_length(name: str) -> Callable[[Setting], Figures]:
    """A backfill of one length in a process of its own."""

    def run(setting: Setting) -> Figures:
        given = setting.given[name]
        figures = in_child(
            "backfill:with_sfwriter",
            sources=given["sources"],
            warehouse=str(setting.folder),
            options={"memory_fraction": BUDGET_BYTES / usable_memory_bytes()},
        )
        check_table(setting.folder / TABLE, given["rows"])
        return {
            "peak_bytes": figures["peak_bytes"],
            "above_budget_bytes": figures["peak_bytes"] - BUDGET_BYTES,
            "rows_per_s": given["rows"] / figures["secs"],
        }

    return run


CASE = Case(
    "memory",
    "peak memory (all of the process) of a backfill with a budget of 256 MiB, short and three times as long",
    (Peer("short", run_length("short")), Peer("long", run_length("long"))),
    (
        Verdict(
            "above the budget, long", ("long", "above_budget_bytes"), how="value", scale=2.0**-20,
            target=ALLOWED_ABOVE, at_least=False, unit="MiB",
        ),
        Verdict(
            "above the budget, short", ("short", "above_budget_bytes"), how="value", scale=2.0**-20,
            target=ALLOWED_ABOVE, at_least=False, unit="MiB",
        ),
    ),
    prepare,
)  # fmt: skip
