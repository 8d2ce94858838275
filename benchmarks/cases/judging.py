"""What rules cost, and how well anomalies are found."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict
from benchmarks.cases.backfill import Stopwatch
from benchmarks.cases.data import TABLE, check_table, make_sources, rows_for
from benchmarks.child import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sfwriter.testing.labelled import Labelled

TEN_RULES = {
    "duration_secs": ["duration_secs >= 0", "duration_secs < 1000000"],
    "rows_processed": "rows_processed IS NULL OR rows_processed >= 0",
    "rows_written": "rows_written IS NULL OR rows_written <= rows_processed * 2",
    "validation_rate": ["validation_rate IS NULL OR validation_rate BETWEEN 0 AND 100"],
    "phase": "phase IN ('bronze', 'silver', 'gold', 'pipeline')",
    "step_name": ["length(step_name) > 2", "step_name NOT LIKE 'tmp%'"],
    "end_time": "end_time >= start_time",
    "success": "success OR error_message IS NOT NULL",
}
HELD_OUT_SEED = 5_000
"""Seeds below 1,000 were looked at while the constants of `sfwriter.anomaly.model` were chosen; these were not."""


def prepare_rows(folder: Path, scale: Scale) -> Mapping[str, Any]:
    """Sources of 2 million rows."""
    return make_sources(folder, rows_for(scale, full=2_000_000, quick=400_000, tiny=20_000))


def run_plain(setting: Setting) -> Figures:
    """A backfill; the built-in rules are always on."""
    return _backfill(setting, "backfill:with_sfwriter", {})


def run_ruled(setting: Setting) -> Figures:
    """The same with ten rules of SQL."""
    options = {"validation_rules": TEN_RULES}
    return _backfill(setting, "backfill:with_sfwriter", {"options": options})


def run_kept(setting: Setting) -> Figures:
    """The same with the results of the built-in rules kept in a table beside."""
    return _backfill(setting, "backfill:with_sfwriter", {"options": {"log_data_quality_results": True}})


def run_built_in(setting: Setting) -> Figures:
    """The built-in rules alone, over the rows in memory."""
    return in_child("judging:built_in", sources=setting.given["sources"])


def _backfill(setting: Setting, name: str, more: dict[str, Any]) -> Figures:
    figures = in_child(name, sources=setting.given["sources"], warehouse=str(setting.folder), **more)
    check_table(setting.folder / TABLE, setting.given["rows"])
    return figures


def built_in(sources: str) -> Figures:
    """One pass of `sfwriter.quality.builtin.breaches` over batches as large as a backfill's."""
    from pathlib import Path as Folder

    import pyarrow.parquet as pq

    from sfwriter.quality.builtin import breaches

    spent = 0.0
    for source in sorted(Folder(sources).glob("*.parquet")):
        rows = pq.read_table(source)
        watch = Stopwatch()
        if breaches(rows):
            raise AssertionError("generated rows keep the rules")
        spent += watch.read()["secs"]
    return {"secs": spent}


RULES = Case(
    "rules",
    "a backfill with ten rules of SQL, beside one without; and the built-in rules alone",
    (
        Peer("plain", run_plain),
        Peer("ten_rules", run_ruled),
        Peer("kept", run_kept),
        Peer("built_in", run_built_in),
    ),
    (
        Verdict("ten rules / plain", ("ten_rules", "secs"), ("plain", "secs"), target=1.5, at_least=False),
        Verdict("kept results / plain", ("kept", "secs"), ("plain", "secs")),
        Verdict("built-in rules / plain", ("built_in", "secs"), ("plain", "secs"), target=0.15, at_least=False),
    ),
    prepare_rows,
)

# ---------------------------------------------------------------- anomalies


def prepare_runs(_folder: Path, scale: Scale) -> Mapping[str, Any]:
    """Seeds of histories with known anomalies."""
    return {"seeds": range(HELD_OUT_SEED, HELD_OUT_SEED + rows_for(scale, full=20, quick=4, tiny=1))}


Told = set[tuple[str, str]]


def run_library(setting: Setting) -> Figures:
    """The library's judge, run after run, as at each write."""
    return _scored(setting, _by_library)


def run_z_score(setting: Setting) -> Figures:
    """Mean and standard deviation of each number of each step; three of them are far."""
    return _scored(setting, _by_z_score)


def run_forest(setting: Setting) -> Figures:
    """Scikit-learn's isolation forest for each step, told the true share of anomalies."""
    return _scored(setting, _by_forest)


def _scored(setting: Setting, detect: Callable[[Labelled], Told]) -> Figures:
    from sfwriter.testing.labelled import labelled_runs

    caught = labels = false = rows = 0
    watch = Stopwatch()
    for seed in setting.given["seeds"]:
        data = labelled_runs(seed)
        told = detect(data)
        caught += sum(where in told for where in data.labels)
        labels += len(data.labels)
        false += sum(where not in data.labels and where not in data.streaks for where in told)
        rows += sum(map(len, data.tested))
    return {"recall": caught / labels, "false_alarms": false / rows, "labels": labels, **watch.read()}


def _points(runs: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for run in runs:
        yield from run


def _by_library(data: Labelled) -> Told:
    from sfwriter.anomaly.history import Histories, Key, Run
    from sfwriter.anomaly.judge import Judge

    histories, judge, told = Histories(), Judge(), set()
    for runs, tested in ((data.history, False), (data.tested, True)):
        for run in runs:
            rows = [
                (
                    Key(row["pipeline_id"], row["step_name"], row["run_mode"]),
                    Run(
                        row["run_id"], row["start_time"].timestamp(), row["duration_secs"],
                        row.get("rows_processed"), row.get("validation_rate"), row["success"],
                    ),
                )
                for row in run
            ]  # fmt: skip
            if tested:
                found = judge.judge(rows, histories.of).anomalies
                told |= {(str(one["run_id"]), str(one["step_name"])) for one in found}
            for key, one_run in rows:
                histories.of(key.pipeline_id, key.run_mode).add(key.step_name, one_run)
    return told


_NUMBERS = ("duration_secs", "rows_processed", "validation_rate")


def _by_z_score(data: Labelled) -> Told:
    known: dict[tuple[str, str, str], list[float]] = {}
    for row in _points(data.history):
        for name in _NUMBERS:
            if row.get(name) is not None:
                known.setdefault((row["pipeline_id"], row["step_name"], name), []).append(row[name])
    usual = {key: (statistics.mean(values), statistics.stdev(values)) for key, values in known.items()}
    return {
        (row["run_id"], row["step_name"])
        for row in _points(data.tested)
        for name in _NUMBERS
        if row.get(name) is not None
        for mean, spread in [usual[row["pipeline_id"], row["step_name"], name]]
        if abs(row[name] - mean) > 3 * spread
    }


def _by_forest(data: Labelled) -> Told:
    from sklearn.ensemble import IsolationForest

    steps: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _points(data.history):
        steps.setdefault((row["pipeline_id"], row["step_name"]), []).append(row)
    share = len(data.labels) / sum(map(len, data.tested))
    told: Told = set()
    for key, rows in steps.items():
        forest = IsolationForest(contamination=min(0.5, share), random_state=0).fit([_vector(row) for row in rows])
        tested = [row for row in _points(data.tested) if (row["pipeline_id"], row["step_name"]) == key]
        if tested:
            verdicts = forest.predict([_vector(row) for row in tested])
            told |= {(row["run_id"], key[1]) for row, verdict in zip(tested, verdicts, strict=True) if verdict < 0}
    return told


def _vector(row: dict[str, Any]) -> list[float]:
    return [float(row.get(name) or 0.0) for name in _NUMBERS] + [float(row["success"])]


ANOMALIES = Case(
    "anomalies",
    "known anomalies in generated histories (held-out seeds), beside a z-score and scikit-learn's isolation forest",
    (Peer("sfwriter", run_library), Peer("z_score", run_z_score), Peer("forest", run_forest)),
    tuple(
        Verdict(
            f"{what}, {peer}", (peer, figure), how="value", unit="%", scale=100.0,
            target=target if peer == "sfwriter" else None, at_least=at_least,
        )
        for peer in ("sfwriter", "z_score", "forest")
        for what, figure, target, at_least in (
            ("recall", "recall", 95.0, True), ("false alarms", "false_alarms", 1.0, False),
        )
    ),
    prepare_runs,
    rounds=1,
)  # fmt: skip
