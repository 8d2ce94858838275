"""The maintenance actor: what is asked of it, what it does by itself, and its death."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from actors import Service, connect
from benchmarks.crash.load import wait_for
from sfwriter import WriterValidationError
from sfwriter.maintenance import plan

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = {"phase": "gold", "step_name": "s"}


def test_it_does_what_a_writer_does_and_says_how_far_it_is(start: Callable[..., Service]) -> None:
    service = start(enable_optimization=False)
    assert service.maintain()["maintained"] is False
    with connect(service.name) as client:
        for _ in range(5):
            client.write_log_rows([ROW])
        told: list[dict[str, Any]] = []
        result = service.maintain({"optimize": True, "validate_schema": True}, progress=told.append)
        assert result["maintenance_operations"] == ["optimize", "validate_schema"]
        assert result["results"]["optimize"]["optimizations_applied"] == ["partitioning"]
        assert all({"table", "step", "started"} <= set(job) for job in told)
        info = client.get_table_info()
        assert (info["num_files"], info["row_count"]) == (1, 5)
        assert client.write_log_rows([ROW])["success"]
    for wrong in ({"optimise": True}, {"optimize": 1}, "optimize"):
        with pytest.raises(WriterValidationError):
            service.maintain(wrong)  # type: ignore[arg-type]
    with pytest.raises(WriterValidationError, match="retention"):
        service.maintain({"vacuum": True, "retention_hours": 1})
    # On a busy machine it says what maintenance said last, up to a second ago.
    wait_for(lambda: service.metrics()["maintenance"]["failures_total"] >= 3, "the failures are counted")
    care = service.metrics()["maintenance"]
    assert care["running"] is None
    assert care["last"]["table"] == info["table_fqn"]
    assert service.health()["maintenance"]["state"] == "idle"


def test_jobs_that_are_asked_for_together_come_one_after_the_other(start: Callable[..., Service]) -> None:
    service = start(enable_optimization=False)
    with connect(service.name) as client, ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            client.write_log_rows([ROW])
        jobs = [threads.submit(service.maintain, {"optimize": True}) for _ in range(4)]
        applied = [job.result()["results"]["optimize"]["optimized"] for job in jobs]
        assert sorted(applied) == [False, False, False, True]
        assert client.get_table_info()["row_count"] == 4


def test_many_small_files_are_joined_by_themselves(start: Callable[..., Service]) -> None:
    service = start(max_batch_mb=0.001)
    with connect(service.name) as client:
        wide = [{**ROW, "error_message": "x" * 2_000, "success": False}]
        futures = [client.submit_log_rows(wide) for _ in range(plan.LEAST_SAVED + 150)]
        assert all(future.result(60)["success"] for future in futures)
        table = client.get_table_info()["location"]
        wait_for(lambda: any(entry["operation"] == "OPTIMIZE" for entry in DeltaTable(table).history()), "a compaction")
        assert client.get_table_info()["row_count"] >= len(futures)
        assert service.reconcile()["consistent"]
