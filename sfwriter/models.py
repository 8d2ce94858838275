"""What users hand in: log rows, and the results of pipelines' runs and steps.

Receives / produces: plain values; nothing here reads or writes.
Guarantees: `WriterConfig` and the enums of `sfwriter.modes` can be imported from here too.
Never does: fill a field that was not given. The gate decides what a row may lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Annotated, Any, TypedDict

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from sfwriter.column import Column
from sfwriter.config import WriterConfig
from sfwriter.modes import Phase, RunMode, WriteMode

__all__ = [
    "Column",
    "ExecutionContext",
    "ExecutionResult",
    "LogRecord",
    "LogRow",
    "Phase",
    "RunMode",
    "StepResult",
    "WriteMode",
    "WriterConfig",
]


class LogRow(TypedDict, total=False):
    """One row as a dict. It needs `phase` and `step_name`; everything else may be left out or None.

    A naive datetime is taken as UTC. `success` left out means that `error_message` is None. Rates are
    percent, durations seconds. `metadata` is a dict here and JSON text in the table. Other keys are
    additional columns, where schema evolution is on.
    """

    run_id: str | None
    run_mode: str | None
    run_started_at: datetime | None
    run_ended_at: datetime | None
    execution_id: str | None
    pipeline_id: str | None
    schema: str | None
    phase: str
    step_name: str
    step_type: str | None
    start_time: datetime | None
    end_time: datetime | None
    duration_secs: float | None
    table_fqn: str | None
    rows_processed: int | None
    rows_written: int | None
    validation_rate: float | None
    success: bool | None
    error_message: str | None
    metadata: Mapping[str, Any] | str | None
    write_mode: str | None
    input_rows: int | None
    output_rows: int | None
    valid_rows: int | None
    invalid_rows: int | None


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


Moment = Annotated[datetime, AfterValidator(_in_utc)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Text = Annotated[str, StringConstraints(strict=True)]
Filled = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]


class LogRecord(BaseModel):
    """A log row that is checked where it is made: types, enums, ranges, and the order of its times.

    Fields are those of `LogRow`, with the same meaning. A subclass with more fields gives rows with
    more columns.

    Raises:
        pydantic.ValidationError: on creation, naming all wrong fields.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True)

    phase: Phase
    step_name: Filled
    run_id: Filled | None = None
    run_mode: RunMode | None = None
    run_started_at: Moment | None = None
    run_ended_at: Moment | None = None
    execution_id: Text | None = None
    pipeline_id: Text | None = None
    # `schema` is a retired method of pydantic's models, and a column of the reference.
    schema_: Text | None = Field(default=None, alias="schema")
    step_type: Text | None = None
    start_time: Moment | None = None
    end_time: Moment | None = None
    duration_secs: Annotated[float, Field(strict=True, ge=0)] | None = None
    table_fqn: Text | None = None
    rows_processed: Count | None = None
    rows_written: Count | None = None
    validation_rate: Annotated[float, Field(strict=True, ge=0, le=100)] | None = None
    success: Annotated[bool, Field(strict=True)] | None = None
    error_message: Text | None = None
    metadata: dict[str, Any] | None = None
    write_mode: WriteMode | None = None
    input_rows: Count | None = None
    output_rows: Count | None = None
    valid_rows: Count | None = None
    invalid_rows: Count | None = None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> LogRecord:
        for start, end in (("start_time", "end_time"), ("run_started_at", "run_ended_at")):
            begun, ended = getattr(self, start), getattr(self, end)
            if begun is not None and ended is not None and ended < begun:
                raise ValueError(f"{end} is before {start}")
        return self

    def to_row(self) -> dict[str, Any]:
        """The row as a dict: column to plain value, without the columns that are None."""
        row = self.model_dump(by_alias=True, exclude_none=True)
        return row | {name: row[name].value for name in ("phase", "run_mode", "write_mode") if name in row}


@dataclass
class ExecutionContext:
    """The run that steps belong to.

    Nothing is checked here: the gate checks the rows. `mode`, `start_time` and `end_time` are other
    names that pipelines use for `run_mode`, `started_at` and `ended_at`; either name may be given.
    """

    run_id: str | None = None
    execution_id: str | None = None
    pipeline_id: str | None = None
    schema: str | None = None
    run_mode: RunMode | str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    mode: RunMode | str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration_secs: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Give each value both of its names."""
        for one, other in (("run_mode", "mode"), ("started_at", "start_time"), ("ended_at", "end_time")):
            if getattr(self, one) is None:
                setattr(self, one, getattr(self, other))
            elif getattr(self, other) is None:
                setattr(self, other, getattr(self, one))


@dataclass
class StepResult:
    """What one step of a run did. Nothing is checked here: the gate checks the rows.

    `success` None means that `error_message` is None. Rates are percent, durations seconds.
    """

    step_name: str
    phase: Phase | str
    success: bool | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration_secs: float | None = None
    rows_processed: int | None = None
    rows_written: int | None = None
    validation_rate: float | None = None
    step_type: str | None = None
    table_fqn: str | None = None
    write_mode: WriteMode | str | None = None
    input_rows: int | None = None
    output_rows: int | None = None
    valid_rows: int | None = None
    invalid_rows: int | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create_success(
        cls, step_name: str, phase: Phase | str, start_time: datetime, end_time: datetime, **figures: Any
    ) -> StepResult:
        """A step that succeeded; its duration is from start to end. `figures` are further fields."""
        measured = {"duration_secs": (end_time - start_time).total_seconds(), **figures}
        return cls(step_name, phase, success=True, start_time=start_time, end_time=end_time, **measured)

    @classmethod
    def create_failure(
        cls,
        step_name: str,
        phase: Phase | str,
        start_time: datetime,
        end_time: datetime,
        error_message: str,
        **figures: Any,
    ) -> StepResult:
        """A step that failed; its duration is from start to end. `figures` are further fields."""
        measured = {"duration_secs": (end_time - start_time).total_seconds(), **figures}
        return cls(
            step_name,
            phase,
            success=False,
            start_time=start_time,
            end_time=end_time,
            error_message=error_message,
            **measured,
        )


@dataclass
class ExecutionResult:
    """A run and what its steps did.

    `success` None means: as all of its steps. `metadata` goes into the row of a run without steps.
    """

    context: ExecutionContext
    step_results: list[StepResult] = field(default_factory=list)
    success: bool | None = None
    error_message: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration_secs: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_context_and_results(cls, context: ExecutionContext, step_results: list[StepResult]) -> ExecutionResult:
        """The result of a run from its steps: successful when none of them failed."""
        failed = any(step.success is False or step.error_message is not None for step in step_results)
        return cls(context, step_results, success=not failed)
