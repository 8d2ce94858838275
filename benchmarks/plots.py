"""Pictures of what was measured: every ratio beside its target, or a steady load over time.

Receives: what `run --json` or `steady --json` wrote.
Produces: one picture, of the kind that the file's ending names.
Never does: measure; leave out a target that was missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MET, MISSED = "#2a6f97", "#d1495b"
PALETTE = ("#012a4a", "#2a6f97", "#61a5c2", "#a9d6e5", "#e07a5f", "#81b29a", "#f2cc8f", "#9c89b8", "#cccccc", "#6b705c")
MIB = 2**20


def draw(found: Mapping[str, Any], into: Path) -> None:
    """Draw figures into a file.

    Args:
        found: with `cases`, or with `points`.
        into: `.svg`, `.png` or `.pdf`.

    Raises:
        ValueError: the figures are of neither kind, there is nothing in them to draw, or the ending is unknown.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    # Texts stay texts, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sfwriter", "font.size": 9})
    if "cases" in found:
        figure = _ratios(found["cases"])
    elif "points" in found:
        figure = _over_time(found["points"])
    else:
        raise ValueError("there are neither cases nor points to draw: give what `run` or `steady` wrote with --json")
    figure.savefig(into, bbox_inches="tight", metadata={"Date": None} if into.suffix == ".svg" else None)


def _ratios(cases: Sequence[Mapping[str, Any]]) -> Any:
    """A bar for each target: how many times it was outdone, to the right of 1, or fallen short of, to the left."""
    from matplotlib.figure import Figure

    rows = [
        (f"{case['case']}: {judged['label']}", judged)
        for case in cases
        for judged in case["verdicts"]
        if judged["target"] is not None
    ]
    if not rows:
        raise ValueError("no case that was run has a target")
    figure = Figure(figsize=(9, 0.6 + 0.28 * len(rows)))
    axes = figure.subplots()
    times = [_times_the_target(judged) for _, judged in rows]
    places = range(len(rows), 0, -1)
    colours = [MET if judged["met"] else MISSED for _, judged in rows]
    axes.barh(list(places), [value - 1 for value in times], left=1, color=colours, height=0.6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.4, 0.8 * min(times)), max(2.5, 3 * max(times)))
    axes.set_yticks(list(places), [label for label, _ in rows])
    axes.set_ylim(0.3, len(rows) + 0.7)
    for place, value, (_, judged) in zip(places, times, rows, strict=True):
        sign = "≥" if judged["at_least"] else "≤"
        found = f"{judged['value']:,.0f}" if judged["value"] >= 1000 else f"{judged['value']:.3g}"
        told = f" {found} {judged['unit']} (asked {sign} {judged['target']:,g})"
        axes.text(max(value, 1), place, told, va="center", fontsize=8, color="black" if judged["met"] else MISSED)
    axes.set_xlabel("times better than what is asked")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return figure


def _times_the_target(judged: Mapping[str, Any]) -> float:
    value, target = float(judged["value"]), float(judged["target"])
    # A target of nothing, or a value of nothing, is as good as a thousandth.
    value, target = max(value, 1e-3), max(target, 1e-3)
    return value / target if judged["at_least"] else target / value


def _over_time(points: Sequence[Mapping[str, float]]) -> Any:
    """Memory by kind of process, p99 of an acknowledgement, and files, over the minutes."""
    from matplotlib.figure import Figure

    if not points:
        raise ValueError("there are no points to draw")
    minutes = [point["secs"] / 60 for point in points]
    kinds = [name for name in points[0] if name.endswith(" bytes") and name != "own bytes"]
    kinds.sort(key=lambda kind: -sum(point[kind] for point in points))
    figure = Figure(figsize=(9, 7))
    memory, latency, files = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.3, 1.3))
    memory.stackplot(
        minutes,
        *([point.get(kind, 0.0) / MIB for point in points] for kind in kinds),
        labels=["clients" if kind == "crew bytes" else kind.split("::")[-1].removesuffix(" bytes") for kind in kinds],
        colors=[PALETTE[at % len(PALETTE)] for at in range(len(kinds))],
        linewidth=0,
    )
    memory.set_ylabel("memory, MiB")
    memory.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True, frameon=False)
    latency.plot(minutes, [point["ack_p99_ms"] for point in points], color=MET)
    latency.set_ylabel("p99 of an ack, ms")
    files.plot(minutes, [point["files"] for point in points], color=MET)
    files.set_ylabel("files of the table")
    files.set_xlabel("minutes")
    for axes in (memory, latency, files):
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
