"""A bronze, silver and gold pipeline over the source files of one package. No Ray, no table.

Receives: a package.
Produces: `StepResult`s as the work is done: what was measured, and errors that happened.
Guarantees: every file is one bronze step and, where that succeeded, one silver step; three gold steps follow.
Never does: stop at an error, or make one up.

bronze `read <file>`: bytes, encoding, lines. A line is valid where it decodes.
silver `parse <file>`: `ast`, and each function's branches. A function is valid where it keeps
    within `MOST_BRANCHES`.
gold: over all files of the package.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
import warnings
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfwriter.models import ExecutionContext, ExecutionResult, Phase, RunMode, StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.demo.packages import Package
    from sfwriter.clock import Clock

LARGEST_BYTES = 128 << 10
"""A larger file is refused by bronze: one of the limits that real pipelines have."""

MOST_BRANCHES = 15
"""Of a valid function: what linters usually allow."""

STEPS_A_BATCH = 25
"""Steps that are handed over at once."""

_BRANCHES = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.BoolOp, ast.comprehension, ast.Assert,
)  # fmt: skip


class FileTooLargeError(Exception):
    """A file is over the pipeline's limit."""


class UndecodableLinesError(Exception):
    """A file has lines that are not in its encoding."""

    def __init__(self, message: str, lines: int, wrong: int) -> None:
        super().__init__(message)
        self.lines = lines
        self.wrong = wrong


@dataclass(frozen=True)
class Function:
    """A function as silver measured it."""

    name: str
    branches: int
    documented: bool


@dataclass(frozen=True)
class Figures:
    """What a step gives beside its result, as columns of its row."""

    processed: int
    written: int
    valid: int
    metadata: dict[str, Any]


class Pipeline:
    """One run over one package."""

    def __init__(self, package: Package, run_id: str, clock: Clock) -> None:
        """Begin with nothing read.

        Args:
            package: what to read.
            run_id: the run's.
            clock: for the moments and durations of the steps.
        """
        self._package = package
        self._clock = clock
        self._texts: dict[str, str] = {}
        self._functions: list[Function] = []
        self._lines: list[int] = []
        self.context = ExecutionContext(
            run_id=run_id,
            pipeline_id=package.name,
            schema="sources",
            run_mode=RunMode.INITIAL,
            started_at=clock.now(),
        )

    def run(self) -> Iterator[ExecutionResult]:
        """Work, and hand over the results of up to `STEPS_A_BATCH` steps at a time."""
        steps: list[StepResult] = []
        for step in self._steps():
            steps.append(step)
            if len(steps) == STEPS_A_BATCH:
                yield ExecutionResult.from_context_and_results(self.context, steps)
                steps = []
        if steps:
            yield ExecutionResult.from_context_and_results(self.context, steps)

    def _steps(self) -> Iterator[StepResult]:
        for file in self._package.files:
            yield self._step(Phase.BRONZE, f"read {file}", partial(self._read, file))
            if file in self._texts:
                yield self._step(Phase.SILVER, f"parse {file}", partial(self._parse, file))
        yield self._step(Phase.GOLD, "count lines", self._count_lines)
        yield self._step(Phase.GOLD, "rank functions", self._rank_functions)
        yield self._step(Phase.GOLD, "count docstrings", self._count_docstrings)

    def _step(self, phase: Phase, name: str, work: Callable[[], Figures]) -> StepResult:
        """Do the work and measure it; whatever it raises is the step's failure."""
        start, began = self._clock.now(), self._clock.monotonic()
        figures: Figures | None = None
        error: Exception | None = None
        try:
            figures = work()
        except Exception as raised:  # noqa: BLE001  a pipeline logs every error of a step and goes on
            error = raised
        duration = self._clock.monotonic() - began
        result = StepResult(
            name,
            phase,
            success=error is None,
            start_time=start,
            end_time=start + timedelta(seconds=duration),
            duration_secs=duration,
            step_type={Phase.BRONZE: "read", Phase.SILVER: "parse", Phase.GOLD: "aggregate"}[phase],
        )
        if error is not None:
            result.error_message = f"{type(error).__name__}: {error}"
        if isinstance(error, UndecodableLinesError):
            figures = Figures(error.lines, 0, error.lines - error.wrong, {})
        if figures is not None:
            result.rows_processed = result.input_rows = figures.processed
            result.rows_written = result.output_rows = figures.written
            result.metadata = {"version": self._package.version, **figures.metadata}
            of = figures.processed if phase is Phase.BRONZE else figures.written
            result.valid_rows, result.invalid_rows = figures.valid, of - figures.valid
            result.validation_rate = 100.0 * figures.valid / of if of else None
        return result

    # ------------------------------------------------------------ bronze

    def _read(self, file: str) -> Figures:
        content = (Path(self._package.root) / file).read_bytes()
        if len(content) > LARGEST_BYTES:
            raise FileTooLargeError(f"{len(content):,} bytes, the limit is {LARGEST_BYTES:,}")
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            lines = content.splitlines()
            wrong = sum(not _decodes(line, encoding) for line in lines)
            raise UndecodableLinesError(f"{wrong} of {len(lines)} lines: {error}", len(lines), wrong) from error
        self._texts[file] = text
        lines_read = len(content.splitlines())
        self._lines.append(lines_read)
        return Figures(lines_read, lines_read, lines_read, {"bytes": len(content), "encoding": encoding})

    # ------------------------------------------------------------ silver

    def _parse(self, file: str) -> Figures:
        text = self._texts.pop(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the files that are read, not of this program
            tree = ast.parse(text, Path(file).name)
        functions = _functions_of(tree)
        self._functions += functions
        branches = [function.branches for function in functions]
        return Figures(
            text.count("\n"),
            len(functions),
            sum(count <= MOST_BRANCHES for count in branches),
            {"most_branches": max(branches, default=0)},
        )

    # ------------------------------------------------------------ gold

    def _count_lines(self) -> Figures:
        spread = {"mean_lines": statistics.mean(self._lines), "longest_lines": max(self._lines)}
        return Figures(len(self._lines), 1, 1, {"lines": sum(self._lines), **spread})

    def _rank_functions(self) -> Figures:
        typical = statistics.median(function.branches for function in self._functions)
        ranked = sorted(self._functions, key=lambda function: -function.branches)[:10]
        sound = sum(function.branches <= MOST_BRANCHES for function in ranked)
        metadata = {"median_branches": typical, "first": ranked[0].name}
        return Figures(len(self._functions), len(ranked), sound, metadata)

    def _count_docstrings(self) -> Figures:
        share = statistics.mean(100.0 * function.documented for function in self._functions)
        return Figures(len(self._functions), 1, 1, {"documented_percent": round(share, 1)})


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _functions_of(tree: ast.AST) -> list[Function]:
    """Every function of a module; what an inner one holds counts for that one alone."""
    nodes: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    branches: list[int] = []
    stack: list[tuple[ast.AST, int]] = [(tree, -1)]
    while stack:
        node, owner = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            owner = len(nodes)
            nodes.append(node)
            branches.append(1)
        elif owner >= 0 and isinstance(node, _BRANCHES):
            branches[owner] += 1
        stack += [(child, owner) for child in ast.iter_child_nodes(node)]
    return [
        Function(node.name, count, ast.get_docstring(node, clean=False) is not None)
        for node, count in zip(nodes, branches, strict=True)
    ]
