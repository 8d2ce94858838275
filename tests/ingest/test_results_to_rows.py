"""Results of runs and steps become rows: this package's models, SparkForge's shapes, mappings."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.rows import execution_result_rows, step_result_rows
from sfwriter.models import ExecutionContext, ExecutionResult, StepResult

START = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)
END = START + timedelta(seconds=90)


class Phase(Enum):
    SILVER = "silver"


class Mode(Enum):
    INCREMENTAL = "incremental"


class Status(Enum):
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    RUNNING = "running"


@dataclass
class ForgeContext:
    """The shape of SparkForge's ExecutionContext."""

    mode: Mode
    start_time: datetime
    end_time: datetime | None = None
    run_id: str = "forge-run"
    execution_id: str = "exec-1"
    pipeline_id: str = "pipe-1"
    schema: str = "analytics"
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class ForgeStep:
    """The shape of SparkForge's StepResult."""

    step_name: str
    phase: Phase
    success: bool
    start_time: datetime
    end_time: datetime
    duration_secs: float
    rows_processed: int
    rows_written: int
    validation_rate: float
    error_message: str | None = None
    step_type: str | None = None


@dataclass
class EngineStep:
    """The shape of the step results of SparkForge's execution engine."""

    step_name: str
    step_type: Phase
    status: Status
    start_time: datetime
    end_time: datetime | None = None
    duration: float | None = None
    error: str | None = None
    rows_processed: int | None = None
    output_table: str | None = None


FORGE_CONTEXT = ForgeContext(Mode.INCREMENTAL, START, END)
FORGE_STEP = ForgeStep("clean", Phase.SILVER, success=True, start_time=START, end_time=END, duration_secs=90.0,
                       rows_processed=10, rows_written=9, validation_rate=90.0)  # fmt: skip
ENGINE_STEP = EngineStep("clean", Phase.SILVER, Status.FAILED, START, END, 90.0, "boom", None, "analytics.clean")


def kept(rows):
    """Rows as the table has them, without nulls."""
    return [{k: v for k, v in row.items() if v is not None} for row in Gate().encode(rows, None).rows.to_pylist()]


def test_every_step_of_a_run_is_one_row_with_the_facts_of_the_run():
    context = ExecutionContext(
        run_id="r", execution_id="e", pipeline_id="p", schema="s", mode="initial", start_time=START
    )
    steps = [
        StepResult.create_success("a", "bronze", START, END, rows_processed=5, validation_rate=100.0),
        StepResult.create_failure("b", "gold", START, END, "boom", write_mode="append", metadata={"try": 2}),
    ]

    first, second = kept(execution_result_rows(ExecutionResult(context, steps)))

    run = {
        "run_id": "r",
        "execution_id": "e",
        "pipeline_id": "p",
        "schema": "s",
        "run_mode": "initial",
        "run_started_at": START,
    }
    times = {"start_time": START, "end_time": END, "duration_secs": 90.0}
    assert first == {
        **run,
        **times,
        "phase": "bronze",
        "step_name": "a",
        "rows_processed": 5,
        "validation_rate": 100.0,
        "success": True,
    }
    assert second == {
        **run, **times, "phase": "gold", "step_name": "b", "success": False, "error_message": "boom",
        "write_mode": "append", "metadata": '{"try":2}',
    }  # fmt: skip


def test_sparkforges_results_are_understood_by_their_attributes():
    result = SimpleNamespace(context=FORGE_CONTEXT, step_results=[FORGE_STEP], metrics=object(), success=True)

    assert kept(execution_result_rows(result)) == [
        {
            "run_id": "forge-run", "run_mode": "incremental", "run_started_at": START, "run_ended_at": END,
            "execution_id": "exec-1", "pipeline_id": "pipe-1", "schema": "analytics", "phase": "silver",
            "step_name": "clean", "start_time": START, "end_time": END, "duration_secs": 90.0, "rows_processed": 10,
            "rows_written": 9, "validation_rate": 90.0, "success": True,
        }
    ]  # fmt: skip


def test_results_of_the_execution_engine_carry_their_run_themselves():
    result = SimpleNamespace(
        execution_id="e",
        mode=Mode.INCREMENTAL,
        start_time=START,
        end_time=END,
        duration=90.0,
        status="failed",
        steps=[ENGINE_STEP],
    )

    [row] = kept(execution_result_rows(result, "r"))

    assert row == {
        "run_id": "r", "run_mode": "incremental", "run_started_at": START, "run_ended_at": END, "execution_id": "e",
        "phase": "silver", "step_type": "silver", "step_name": "clean", "start_time": START, "end_time": END,
        "duration_secs": 90.0, "table_fqn": "analytics.clean", "success": False, "error_message": "boom",
    }  # fmt: skip


def test_a_report_gives_its_steps_by_layer_and_name():
    report = {
        "pipeline_id": "p",
        "execution_id": "e",
        "mode": "initial",
        "status": "completed",
        "start_time": START,
        "bronze_results": {"load": {"status": "completed", "duration": 1.5, "rows_processed": 7}},
        "silver_results": {"clean": {"status": "failed", "error": ValueError("bad")}},
        "gold_results": {},
    }

    rows = execution_result_rows(report)

    assert [(row["phase"], row["step_name"], row["success"]) for row in rows] == [
        ("bronze", "load", True),
        ("silver", "clean", False),
    ]
    assert (rows[0]["duration_secs"], rows[0]["rows_processed"]) == (1.5, 7)
    assert rows[1]["error_message"] == "ValueError: bad"
    assert all(row["pipeline_id"] == "p" for row in rows)


@pytest.mark.parametrize("steps", [[], (), {}, None])
def test_a_run_without_steps_is_one_row_of_phase_pipeline(steps):
    result = {
        "context": FORGE_CONTEXT,
        "step_results": steps,
        "success": False,
        "error_message": "no source",
        "metadata": {"a": 1},
    }

    [row] = kept(execution_result_rows(result))

    assert (row["phase"], row["step_name"], row["success"]) == ("pipeline", "__run__", False)
    assert (row["start_time"], row["end_time"], row["duration_secs"]) == (START, END, 90.0)
    assert (row["error_message"], row["metadata"]) == ("no source", '{"a":1}')


def test_the_run_id_of_the_call_wins_over_that_of_the_context():
    assert step_result_rows([FORGE_STEP], FORGE_CONTEXT, "call")[0]["run_id"] == "call"
    assert step_result_rows([FORGE_STEP], FORGE_CONTEXT)[0]["run_id"] == "forge-run"


def test_rows_of_a_run_without_an_id_share_one_new_one():
    rows = step_result_rows([FORGE_STEP, ENGINE_STEP], {"pipeline_id": "p"})

    assert all("run_id" not in row for row in rows)
    assert len(set(Gate().encode(rows).rows["run_id"].to_pylist())) == 1


def test_steps_may_come_by_name():
    rows = step_result_rows({"load": {"phase": "bronze"}, "x": {"step_name": "own", "phase": "gold"}}, {"run_id": "r"})

    assert [row["step_name"] for row in rows] == ["load", "own"]


def test_what_a_result_does_not_have_stays_out():
    assert step_result_rows([{"step_name": "a", "phase": "gold"}], {"run_id": "r"}) == [
        {"run_id": "r", "step_name": "a", "phase": "gold"}
    ]


@pytest.mark.parametrize(
    ("times", "duration"),
    [
        ({"start_time": START, "end_time": END}, 90.0),
        ({"started_at": START, "completed_at": END}, 90.0),
        ({"start_time": START, "end_time": END, "duration_secs": 1.0}, 1.0),
        ({"duration": timedelta(seconds=3)}, 3.0),
        ({"execution_time": 4.0}, 4.0),
        ({"start_time": START}, None),
        ({"start_time": END, "end_time": START}, None),
        ({"start_time": START, "end_time": END.replace(tzinfo=None)}, None),
    ],
)
def test_a_duration_is_told_or_measured_and_never_made_up(times, duration):
    [row] = step_result_rows([{"step_name": "a", "phase": "gold", **times}], {"run_id": "r"})

    assert row.get("duration_secs") == duration


@pytest.mark.parametrize(
    ("facts", "success", "metadata"),
    [
        ({"success": False}, False, None),
        ({"status": Status.COMPLETED}, True, None),
        ({"status": "FAILED"}, False, None),
        ({"status": Status.SKIPPED}, True, {"status": "skipped"}),
        ({"status": Status.RUNNING}, False, {"status": "running"}),
        ({"status": "peculiar"}, None, {"status": "peculiar"}),
        ({"status": "failed", "success": True}, True, None),
        ({}, None, None),
    ],
)
def test_success_comes_from_success_else_from_the_status(facts, success, metadata):
    [row] = step_result_rows([{"step_name": "a", "phase": "gold", **facts}], {"run_id": "r"})

    assert row.get("success") is success
    assert row.get("metadata") == metadata


def test_metadata_of_the_context_goes_to_every_step_and_the_steps_own_wins():
    context = ExecutionContext(run_id="r", metadata={"team": "x", "try": 1})

    [row] = step_result_rows([StepResult("a", "gold", metadata={"try": 2})], context)

    assert row["metadata"] == {"team": "x", "try": 2}


@pytest.mark.parametrize("given", [None, 7, "text", [], {}, object(), ExecutionResult, {"context": 7}])
def test_what_is_no_result_of_a_run_is_refused_with_what_is_missing(given):
    with pytest.raises(WriterValidationError, match=r"execution_result.* which has none of .*run_id"):
        execution_result_rows(given)


@pytest.mark.parametrize("given", [None, 7, "text", [], {}])
def test_what_is_no_context_is_refused_with_what_is_missing(given):
    with pytest.raises(WriterValidationError, match=r"execution_context is .* which has none of run_id"):
        step_result_rows([FORGE_STEP], given)


@pytest.mark.parametrize("given", [None, 7, "text", {"step_name": "a", "phase": "gold"}])
def test_what_is_no_list_of_steps_is_refused(given):
    with pytest.raises(WriterValidationError, match="step_results is"):
        step_result_rows(given, FORGE_CONTEXT)


@pytest.mark.parametrize("step", [None, 7, "text", object(), {"duration": 1}])
def test_what_is_no_step_is_refused_with_what_is_missing(step):
    with pytest.raises(WriterValidationError, match="step_name"):
        step_result_rows([step], FORGE_CONTEXT)


def test_a_named_step_without_facts_is_refused_by_its_name():
    with pytest.raises(WriterValidationError, match="'load'"):
        step_result_rows({"load": 7}, FORGE_CONTEXT)


def test_metadata_that_is_no_dict_is_refused():
    with pytest.raises(WriterValidationError, match="metadata is"):
        step_result_rows([{"step_name": "a", "phase": "gold", "metadata": [1]}], FORGE_CONTEXT)


def test_a_step_without_a_phase_is_left_to_the_gate():
    rows = step_result_rows([{"step_name": "a"}, FORGE_STEP], FORGE_CONTEXT)

    assert Gate("lenient").admit(rows).quarantined == 1


# ---------------------------------------------------------------- SparkForge, version by version


class ForgePhase(Enum):
    BRONZE = "bronze"
    GOLD = "gold"


@dataclass
class NewestStep:
    """Of `sparkforge.models.execution` 1.3.1: a step that names its table."""

    step_name: str
    phase: ForgePhase
    success: bool
    start_time: datetime
    end_time: datetime
    duration_secs: float
    rows_processed: int
    rows_written: int
    validation_rate: float
    error_message: str | None = None
    step_type: str | None = None
    table_fqn: str | None = None
    write_mode: str | None = None
    input_rows: int | None = None

    @property
    def error_rate(self) -> float:
        return 100.0 - self.validation_rate


@dataclass
class NewestContext:
    """Of the same module: `mode` beside its alias, and aliases that `finish` leaves behind."""

    mode: Mode
    start_time: datetime
    end_time: datetime | None = None
    duration_secs: float | None = None
    run_id: str = "run"
    execution_id: str = "exec"
    pipeline_id: str = "unknown"
    schema: str = "default"
    started_at: datetime | None = None
    ended_at: datetime | None = None
    run_mode: str = "initial"
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Totals:
    """Of `sparkforge.models.pipeline`: `PipelineMetrics`, with the zeros of what nobody counted."""

    total_steps: int = 0
    total_duration: float = 0.0
    total_rows_processed: int = 0
    total_rows_written: int = 0
    avg_validation_rate: float = 0.0


@dataclass
class Report:
    """Of `sparkforge.pipeline.models`: `PipelineReport`, in which steps are dicts and their moments ISO text."""

    pipeline_id: str
    execution_id: str
    mode: Mode
    status: Status
    start_time: datetime
    end_time: datetime | None = None
    duration_seconds: float = 0.0
    metrics: Totals = field(default_factory=Totals)
    bronze_results: dict[str, Any] = field(default_factory=dict)
    silver_results: dict[str, Any] = field(default_factory=dict)
    gold_results: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def success(self) -> bool:
        return self.status is Status.COMPLETED and not self.errors


@dataclass
class GroupedStep:
    """Of `sparkforge.execution.results`: no times, a retry count, a status."""

    step_name: str
    step_type: ForgePhase
    status: Status
    duration_seconds: float
    rows_processed: int = 0
    rows_written: int = 0
    error_message: str | None = None
    output_data: object = None
    retry_count: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


def test_the_newest_steps_bring_their_table_mode_and_input():
    step = NewestStep("agg", ForgePhase.GOLD, True, START, END, 90.0, 10, 9, 90.0, None, "gold", "s.agg", "append", 12)
    context = NewestContext(Mode.INCREMENTAL, START, END, started_at=START, run_mode="incremental")

    [row] = kept(execution_result_rows(SimpleNamespace(context=context, step_results=[step], metrics=Totals())))

    assert (row["phase"], row["step_type"], row["table_fqn"], row["write_mode"]) == ("gold", "gold", "s.agg", "append")
    assert (row["input_rows"], row["run_mode"], row["run_ended_at"]) == (12, "incremental", END)
    assert "error_rate" not in row


STEP_OF_A_REPORT = {
    "status": "completed", "duration": 1.5, "rows_processed": 7, "output_table": "s.load",
    "start_time": "2024-01-31T12:00:00", "end_time": "2024-01-31T12:00:01.500000", "write_mode": "overwrite",
    "validation_rate": 100.0, "rows_written": 6, "input_rows": None, "dataframe": object(),
}  # fmt: skip


def test_the_steps_of_a_pipeline_report_have_their_moments_from_iso_text():
    report = Report("p", "e", Mode.INCREMENTAL, Status.COMPLETED, START, END, bronze_results={"load": STEP_OF_A_REPORT})

    [row] = kept(execution_result_rows(report, "r"))

    assert (row["start_time"], row["duration_secs"]) == (START, 1.5)
    assert (row["phase"], row["step_name"], row["table_fqn"]) == ("bronze", "load", "s.load")
    assert (row["rows_written"], row["write_mode"], row["success"]) == (6, "overwrite", True)


def test_a_report_as_the_dict_that_it_makes_of_itself_gives_the_same_rows():
    facts = {"pipeline_id": "p", "execution_id": "e", "mode": "incremental", "status": "completed"}
    moments = {"start_time": START.isoformat(), "end_time": END.isoformat(), "duration_seconds": 90.0}
    report = Report("p", "e", Mode.INCREMENTAL, Status.COMPLETED, START, END, silver_results={"a": STEP_OF_A_REPORT})
    as_dict = {**facts, **moments, "metrics": {"total_steps": 1}, "silver_results": {"a": STEP_OF_A_REPORT}}

    assert kept(execution_result_rows(as_dict, "r")) == kept(execution_result_rows(report, "r"))


def test_a_report_without_steps_is_one_row_with_the_totals_that_somebody_counted():
    counted = Report("p", "e", Mode.INCREMENTAL, Status.FAILED, START, END, 90.0, Totals(3, 90.0, 70, 60),
                     errors=["a", "b"])  # fmt: skip
    uncounted = Report("p", "e", Mode.INCREMENTAL, Status.COMPLETED, START, END, 90.0, Totals(3, 90.0))

    [told], [silent] = (kept(execution_result_rows(report, "r")) for report in (counted, uncounted))

    assert (told["rows_processed"], told["rows_written"], told["duration_secs"]) == (70, 60, 90.0)
    assert (told["success"], told["error_message"]) == (False, "a; b")
    assert "rows_processed" not in silent
    assert silent["success"] is True


def test_groups_of_steps_by_name_with_their_totals():
    steps = {"load": GroupedStep("load", ForgePhase.BRONZE, Status.COMPLETED, 2.5, 7, 7, metadata={"try": 1})}
    result = SimpleNamespace(step_results=steps, execution_groups=[["load"]], total_duration=2.5, start_time=START,
                             end_time=END, total_rows_processed=7, errors=[])  # fmt: skip

    [row] = kept(execution_result_rows(result, "r"))

    assert (row["phase"], row["duration_secs"], row["rows_written"], row["success"]) == ("bronze", 2.5, 7, True)
    assert (row["run_started_at"], row["metadata"]) == (START, '{"try":1}')


def test_frames_in_the_context_of_the_engines_result_are_no_context():
    result = SimpleNamespace(execution_id="e", mode=Mode.INCREMENTAL, start_time=START, status="completed",
                             steps=[ENGINE_STEP], context={"clean": object()})  # fmt: skip

    assert execution_result_rows(result, "r")[0]["execution_id"] == "e"


def test_what_the_step_executor_returns_is_a_step():
    step = {"success": True, "step_name": "clean", "step_type": "silver", "duration": 2.0, "rows_processed": 10,
            "rows_written": 9, "quality_rate": 90.0, "table_name": "s.clean"}  # fmt: skip

    [row] = kept(step_result_rows([step], {"run_id": "r"}))

    assert (row["phase"], row["validation_rate"], row["table_fqn"]) == ("silver", 90.0, "s.clean")


def test_stage_statistics_are_a_step():
    stats = SimpleNamespace(stage="bronze", step="load", total_rows=10, valid_rows=9, invalid_rows=1,
                            validation_rate=90.0, duration_secs=1.0, start_time=START, end_time=None)  # fmt: skip

    [row] = kept(step_result_rows([stats], {"run_id": "r"}))

    assert (row["step_name"], row["phase"], row["rows_processed"], row["valid_rows"]) == ("load", "bronze", 10, 9)


def test_the_reports_of_the_first_writer_are_read_block_by_block():
    block = {"start_at": START, "end_at": END, "duration_secs": 1.0}
    report = {
        "run": {"mode": "incremental", "started_at": START, "ended_at": END},
        "bronze": {"load": {"validation": {"stage": "bronze", "step": "load", "valid_rows": 9, "invalid_rows": 1,
                                           "validation_rate": 90.0, **block}}},
        "silver": {
            "clean": {
                "table_fqn": "s.clean",
                "transform": {"input_rows": 9, "output_rows": 8, "skipped": False, **block},
                "write": {"mode": "append", "rows_written": 8, "table_fqn": "s.clean", **block},
                "validation": {"valid_rows": 8, "invalid_rows": 0, "validation_rate": 100.0, **block},
            }
        },
        "gold": {},
    }  # fmt: skip

    load, clean = kept(execution_result_rows(report, "r"))

    assert (load["phase"], load["step_name"], load["valid_rows"], load["run_mode"]) == (
        "bronze", "load", 9, "incremental",
    )  # fmt: skip
    assert (clean["write_mode"], clean["table_fqn"], clean["rows_written"]) == ("append", "s.clean", 8)
    assert (clean["input_rows"], clean["output_rows"], clean["valid_rows"]) == (9, 8, 8)
    # From the first block's start to its end: the duration of one block is not that of the step.
    assert clean["duration_secs"] == 90.0


def test_a_moment_that_is_no_iso_text_is_left_to_the_gate():
    [row] = step_result_rows([{"step_name": "a", "phase": "gold", "start_time": "noon"}], {"run_id": "r"})

    assert row["start_time"] == "noon"
