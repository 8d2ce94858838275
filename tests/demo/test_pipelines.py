from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.demo.packages import Package, dealt, evenly, installed
from deploy.demo.pipelines import STEPS_A_BATCH, Pipeline
from sfwriter import LogWriter, WriterConfig
from sfwriter.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from sfwriter.models import StepResult


def steps_of(package: Package) -> dict[str, StepResult]:
    results = list(Pipeline(package, "run-1", SystemClock()).run())
    return {step.step_name: step for result in results for step in result.step_results}


def test_each_file_is_read_and_each_file_that_could_be_read_is_parsed(package: Package) -> None:
    steps = steps_of(package)
    read = {name for name in steps if name.startswith("read ")}
    assert read == {f"read {file}" for file in package.files}
    readable = {name for name in read if steps[name].success}
    assert {name for name in steps if name.startswith("parse ")} == {f"parse {name[5:]}" for name in readable}
    assert set(steps) - read == {name for name in steps if name.startswith("parse ")} | {
        "count lines", "rank functions", "count docstrings",
    }  # fmt: skip


def test_what_is_broken_fails_with_the_error_that_happened(package: Package) -> None:
    steps = steps_of(package)
    failures = {name: step.error_message or "" for name, step in steps.items() if not step.success}
    assert set(failures) == {
        "parse tiny/old.py", "read tiny/odd.py", "read tiny/unknown.py", "read tiny/long.py", "read tiny/gone.py",
    }  # fmt: skip
    assert failures["parse tiny/old.py"].startswith("SyntaxError: ")
    assert failures["read tiny/odd.py"].startswith("UndecodableLinesError: 1 of 4 lines: ")
    assert "uft-8" in failures["read tiny/unknown.py"]
    assert failures["read tiny/long.py"].startswith("FileTooLargeError: 240,000 bytes")
    assert failures["read tiny/gone.py"].startswith("FileNotFoundError: ")


def test_validation_rates_are_counted(package: Package) -> None:
    steps = steps_of(package)
    good, odd, empty = (steps[name] for name in ("parse tiny/good.py", "read tiny/odd.py", "parse tiny/__init__.py"))
    assert (good.rows_written, good.valid_rows, good.invalid_rows, good.validation_rate) == (2, 1, 1, 50.0)
    assert (odd.rows_processed, odd.valid_rows, odd.invalid_rows, odd.validation_rate) == (4, 3, 1, 75.0)
    assert empty.validation_rate is None, "nothing was written, so no share of it is valid"


def test_aggregates_of_a_package_without_functions_fail(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("x = 1\n")
    steps = steps_of(Package("data", "1", str(tmp_path), ("data.py",)))
    assert {name: bool(step.success) for name, step in steps.items() if step.step_type == "aggregate"} == {
        "count lines": True, "rank functions": False, "count docstrings": False,
    }  # fmt: skip


def test_a_writer_takes_every_step_in_strict_mode(package: Package, tmp_path: Path) -> None:
    results = list(Pipeline(package, "run-1", SystemClock()).run())
    assert all(len(result.step_results) <= STEPS_A_BATCH for result in results)
    with LogWriter(config=WriterConfig(warehouse=tmp_path / "warehouse")) as writer:
        written = sum(writer.write_execution_result(result)["rows_written"] for result in results)
    assert written == len(steps_of(package))


def test_this_environment_has_packages_enough() -> None:
    packages = installed(5)
    assert {"pyarrow", "python.json"} <= {package.name for package in packages}
    assert all(3 <= len(package.files) <= 5 for package in packages)


def test_packages_are_dealt_evenly_and_all_of_them() -> None:
    packages = [Package(f"p{n}", "1", "/", ("x",) * n) for n in range(1, 20)]
    hands = dealt(packages, 3)
    assert sorted(package.name for hand in hands for package in hand) == sorted(package.name for package in packages)
    sizes = [sum(len(package.files) for package in hand) for hand in hands]
    assert max(sizes) - min(sizes) <= 2


def test_a_sample_is_spread_over_the_whole_list() -> None:
    assert evenly(tuple("abcdef"), 3) == ("a", "c", "e")
    assert evenly(tuple("ab"), 3) == ("a", "b")
