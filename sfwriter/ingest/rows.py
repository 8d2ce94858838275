"""Results of runs and steps, as log rows.

Receives: this package's models, or any object or mapping of their shape, by attributes or by keys.
Produces: one dict for each step; one with `phase="pipeline"` and `step_name="__run__"` for a run without steps.
Guarantees: what a result does not have is left out. Only two things are worked out: a duration from its
    start and end, and success from a status.
Never does: check values or give run ids; that is the gate's.

SparkForge's own classes have carried their facts under several names; `_STEP`, `_RUN` and `_LAYERS` list those
that are understood. Its reports (`PipelineReport`) keep the moments of their steps as ISO text, and those of its
first writer keep a step's facts in the blocks `transform`, `write` and `validation`: both are read. Other
attributes are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.jsontext import bounded
from sfwriter.quality.builtin import PHASES

RUN_STEP = "__run__"
"""The step name of the row of a run that has no steps."""

_DURATION = ("duration_secs", "duration_seconds", "duration", "execution_time", "total_duration")
_START = ("start_time", "started_at", "start_at")
_END = ("end_time", "ended_at", "completed_at", "finished_at", "end_at")
_ERROR = ("error_message", "error", "errors")

_STEP = {
    "step_name": ("step_name", "name", "step"),
    "phase": ("phase", "stage", "layer"),
    "step_type": ("step_type",),
    "table_fqn": ("table_fqn", "output_table", "table_name"),
    "rows_processed": ("rows_processed", "total_rows"),
    "rows_written": ("rows_written",),
    "validation_rate": ("validation_rate", "quality_rate"),
    "write_mode": ("write_mode",),
    "input_rows": ("input_rows",),
    "output_rows": ("output_rows",),
    "valid_rows": ("valid_rows",),
    "invalid_rows": ("invalid_rows",),
}
_RUN = {
    "run_id": ("run_id",),
    "run_mode": ("run_mode", "mode"),
    "run_started_at": ("run_started_at", "started_at", "start_time"),
    "run_ended_at": ("run_ended_at", "ended_at", "end_time"),
    "execution_id": ("execution_id",),
    "pipeline_id": ("pipeline_id",),
    "schema": ("schema", "schema_name", "target_schema"),
}
_MOMENTS = ("run_started_at", "run_ended_at")
_CONTEXTS = ("context", "execution_context", "run")
_STEPS = ("step_results", "steps")
_LAYERS = {
    "bronze_results": "bronze", "silver_results": "silver", "gold_results": "gold",
    "bronze": "bronze", "silver": "silver", "gold": "gold",
}  # fmt: skip
_BLOCKS = ("transform", "validation", "write")
"""Where a step of the first writer's reports has its facts; what two of them tell is the first one's."""

_BLOCK_NAMES = {"write": {"mode": "write_mode"}}
"""What a block calls otherwise. It tells nothing of the step as a whole: `duration_secs` is that of the block."""

_TOTALS = {"rows_processed": "total_rows_processed", "rows_written": "total_rows_written"}
"""Of a whole run. SparkForge has 0 in them where nobody counted, so that a 0 tells nothing."""

_SUCCEEDED = frozenset({"completed", "success", "succeeded", "passed", "skipped"})
_FAILED = frozenset({"failed", "failure", "error", "cancelled", "canceled", "pending", "running", "paused"})
_PLAIN = (str, bytes, bytearray, bool, int, float, complex, datetime, timedelta, type(None))


def execution_result_rows(execution_result: Any, run_id: str | None = None) -> list[dict[str, Any]]:
    """The rows of one run.

    Args:
        execution_result: has `context` and `step_results` (a list, or name to result), or its run's facts
            itself and `steps`, or `bronze_results`, `silver_results` and `gold_results`.
        run_id: wins over the one that the context has.

    Raises:
        WriterValidationError: it, its context or a step has not that shape.
    """
    _check_shape(execution_result, "execution_result", (*_CONTEXTS, *_STEPS, *_LAYERS, *_names(_RUN)))
    context = _first(execution_result, _CONTEXTS)
    if _is_no_context(context, execution_result):
        context = None
    if context is not None:
        _check_shape(context, "the context of execution_result", _names(_RUN))
    run = _facts_of_run(run_id, context, execution_result)
    steps = list(_steps_of(execution_result))
    if not steps:
        return [_run_row(execution_result, context, run)]
    return [_step_row(name, phase, step, context, run) for name, phase, step in steps]


def step_result_rows(step_results: Any, context: Any, run_id: str | None = None) -> list[dict[str, Any]]:
    """One row for each step; none for no steps.

    Args:
        step_results: steps, or a mapping of step name to step.
        context: of the run.
        run_id: wins over the one that the context has.

    Raises:
        WriterValidationError: `context`, `step_results` or one of them has not that shape.
    """
    _check_shape(context, "execution_context", _names(_RUN))
    run = _facts_of_run(run_id, context)
    return [_step_row(name, phase, step, context, run) for name, phase, step in _listed(step_results, "step_results")]


def _is_no_context(context: Any, result: Any) -> bool:
    """Whether a result tells of its run itself, and its `context` is something else.

    SparkForge's engine keeps the frames of the steps there, by their names.
    """
    return isinstance(context, Mapping) and not _has(context, _names(_RUN)) and _has(result, _names(_RUN))


def _names(columns: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in columns.values() for name in names))


def _first(source: Any, names: Iterable[str]) -> Any:
    """The first of the attributes or keys that is there, is not None, and is no method."""
    for name in names:
        value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
        if value is not None and not (callable(value) and not isinstance(value, type(source))):
            return value
    return None


def _has(source: Any, names: Iterable[str]) -> bool:
    """Whether one of the attributes or keys is there, None or not."""
    return any(name in source if isinstance(source, Mapping) else hasattr(source, name) for name in names)


def _check_shape(source: Any, what: str, names: tuple[str, ...]) -> None:
    if isinstance(source, (*_PLAIN, type)) or not _has(source, names):
        raise WriterValidationError(
            f"{what} is {bounded(source)}, which has none of {', '.join(names)}.",
            context={"given": type(source).__name__, "missing": list(names)},
            suggestions=["Give an object or a mapping with these, such as those of sfwriter.models."],
        )


def _steps_of(result: Any) -> Iterable[tuple[str | None, str | None, Any]]:
    """Name and phase, as far as where the step was found says them, and the step."""
    steps = _first(result, _STEPS)
    if steps is not None:
        found = list(_listed(steps, "step_results"))
        if found:
            return found
    return [
        (name, phase, step)
        for layer, phase in _LAYERS.items()
        for name, _, step in _listed(_first(result, (layer,)) or (), layer)
    ]


def _listed(steps: Any, what: str) -> Iterable[tuple[str | None, str | None, Any]]:
    if isinstance(steps, Mapping) and not _has(steps, _STEP["step_name"]):
        return [(name, None, step) for name, step in steps.items()]
    if isinstance(steps, (*_PLAIN, type, Mapping)) or not isinstance(steps, Iterable):
        raise WriterValidationError(
            f"{what} is {bounded(steps)}; a list of steps, or a mapping of step name to step, is expected.",
            context={"field": what, "given": type(steps).__name__},
            suggestions=["Put a single step in a list."],
        )
    return [(None, None, step) for step in steps]


def _facts_of_run(run_id: str | None, *sources: Any) -> dict[str, Any]:
    """What all rows of the run share, from the first source that has it."""
    facts: dict[str, Any] = {}
    for column, names in _RUN.items():
        for source in sources:
            value = None if source is None else _first(source, names)
            if value is not None:
                facts[column] = _moment(value) if column in _MOMENTS else value
                break
    return facts if run_id is None else {**facts, "run_id": run_id}


def _step_row(name: str | None, phase: str | None, step: Any, context: Any, run: dict[str, Any]) -> dict[str, Any]:
    known = (*_STEP["step_name"], *_STEP["phase"])
    if isinstance(step, (*_PLAIN, type)) or (name is None and not _has(step, known)):
        _check_shape(step, "a step" if name is None else f"the step {name!r}", known)
        raise WriterValidationError(
            f"The step {name!r} is {bounded(step)}; an object or a mapping is expected.",
            context={"given": type(step).__name__, "step_name": name},
            suggestions=["Give the step's result as an object or a mapping, such as sfwriter.models.StepResult."],
        )
    step = _unfolded(step)
    row = {**run, **{column: value for column, names in _STEP.items() if (value := _first(step, names)) is not None}}
    if name is not None:
        row.setdefault("step_name", name)
    if "phase" not in row:
        # SparkForge's engine calls the phase of a step its type.
        kind = _value(row.get("step_type"))
        found = kind if kind in PHASES else phase
        if found is not None:
            row["phase"] = found
    return {**row, **_measures(step), **_outcome(step, context)}


def _unfolded(step: Any) -> Any:
    """A step with the facts of its blocks at the top; one without blocks as it is."""
    if not isinstance(step, Mapping):
        return step
    blocks = [(name, step[name]) for name in _BLOCKS if isinstance(step.get(name), Mapping)]
    if not blocks:
        return step
    flat: dict[str, Any] = {}
    for name, block in blocks:
        renamed = _BLOCK_NAMES.get(name, {})
        for key, value in block.items():
            if value is not None and key not in (*_DURATION, *_STEP["step_name"], *_STEP["phase"]):
                flat.setdefault(renamed.get(key, key), value)
    return {**flat, **{key: value for key, value in step.items() if key not in _BLOCKS}}


def _run_row(result: Any, context: Any, run: dict[str, Any]) -> dict[str, Any]:
    times = {**_measures(context), **_measures(result)} if context is not None else _measures(result)
    metrics = _first(result, ("metrics",))
    for column, name in _TOTALS.items():
        total = _first(result, (name,)) or (_first(metrics, (name,)) if metrics is not None else None)
        if total:
            times[column] = total
    return {**run, "phase": "pipeline", "step_name": RUN_STEP, **times, **_outcome(result, context)}


def _measures(source: Any) -> dict[str, Any]:
    """Start, end and duration; a duration that is not told is the time from start to end."""
    start, end = _moment(_first(source, _START)), _moment(_first(source, _END))
    duration = _first(source, _DURATION)
    timed = duration is None and isinstance(start, datetime) and isinstance(end, datetime)
    if timed and (start.tzinfo is None) == (end.tzinfo is None) and end >= start:
        duration = end - start
    if isinstance(duration, timedelta):
        duration = duration.total_seconds()
    measures = {"start_time": start, "end_time": end, "duration_secs": duration}
    return {column: value for column, value in measures.items() if value is not None}


def _moment(value: Any) -> Any:
    """A moment that was written as ISO text; what is none is left to the gate."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return value
    return value


def _outcome(source: Any, context: Any) -> dict[str, Any]:
    """Success, error and metadata; a status that says more than success stays in the metadata."""
    row: dict[str, Any] = {}
    success, status, error = _first(source, ("success",)), _first(source, ("status",)), _first(source, _ERROR)
    metadata = {**_mapping(context), **_mapping(source)}
    name = str(_value(status)).lower() if status is not None else None
    if success is None and name in _SUCCEEDED | _FAILED:
        success = name in _SUCCEEDED
    if name is not None and name not in {"completed", "success", "succeeded", "passed", "failed", "failure", "error"}:
        metadata.setdefault("status", _value(status))
    message = _message(error)
    if success is not None:
        row["success"] = success
    if message is not None:
        row["error_message"] = message
    if metadata:
        row["metadata"] = metadata
    return row


def _mapping(source: Any) -> dict[str, Any]:
    """The metadata of a context, a step or a run."""
    found = None if source is None else _first(source, ("metadata",))
    if found is None or isinstance(found, Mapping):
        return dict(found or {})
    raise WriterValidationError(
        f"metadata is {bounded(found)}; a dict is expected.",
        context={"field": "metadata", "given": type(found).__name__},
        suggestions=["Give metadata as a dict."],
    )


def _message(error: Any) -> Any:
    """The text of an error, of an exception, or of a list of them; None where there is none."""
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, (list, tuple)):
        return "; ".join(str(_message(part)) for part in error) or None
    return error


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
