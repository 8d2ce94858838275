"""The service as its users see it: real actors, real tables."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pytest
import ray
from deltalake import DeltaTable
from ray.exceptions import RayTaskError

from actors import Service, connect
from actors.options import NAMESPACE, actor_name
from actors.pool import WriterPool
from actors.wire import Entry, Parcel, Payload, Share, pack
from benchmarks.crash.load import frozen
from sfwriter import WriterConfig
from sfwriter.batch import EncodedBatch
from sfwriter.exceptions import (
    WriterConfigurationError,
    WriterError,
    WriterPerformanceError,
    WriterSchemaError,
    WriterValidationError,
)
from sfwriter.flow.vocabulary import Staged
from sfwriter.runtime.blueprint import log_table_spec
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.testing.rows import log_rows, log_table
from tests.service.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

StartService = "Callable[..., Service]"


def rows(count: int = 7, **more: Any) -> list[dict[str, Any]]:
    return [
        {"phase": "bronze", "step_name": f"step-{i}", "run_id": "r", "rows_processed": i, **more} for i in range(count)
    ]


@pytest.fixture(scope="module")
def service(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = WriterConfig(warehouse=tmp_path_factory.mktemp("shared"), memory_fraction=0.02, parallel_write_threads=2)
    with Service.start(config, name="shared") as running:
        yield running


def test_a_client_writes_as_the_writer_does_and_gets_the_same_result_keys(service: Service) -> None:
    with connect(service.name) as client:
        before = client.get_table_info()["row_count"]
        result = client.write_log_rows(rows())
        assert result["success"]
        assert result["rows_written"] == 7
        assert result["batch_id"] == f"{client.producer_id}:0"
        assert result["already_written"] is False
        assert set(result) == {
            "success", "rows_written", "run_id", "batch_id", "table_fqn", "version", "duration_secs",
            "quarantined_rows", "quality_results", "anomalies", "already_written",
        }  # fmt: skip
        assert client.get_table_info()["row_count"] == before + 7
        assert client.committed_sequence == 0
        assert client.get_metrics()["total_writes"] == 1
        assert client.get_memory_usage()["budget_mb"] > 0


def test_quality_anomalies_quarantine_and_maintenance_work_through_a_client(
    start: StartService,
) -> None:
    service = start(
        schema_validation_mode="lenient",
        validation_rules={"rows_processed": "rows_processed < 100"},
        log_data_quality_results=True,
        enable_anomaly_detection=True,
    )
    with connect(service.name, producer_id="p") as client:
        result = client.write_log_rows([*rows(), *rows(1, rows_processed=500)], sequence=0)
        assert (result["rows_written"], result["quarantined_rows"]) == (7, 1)
        assert result["quality_results"]["invalid_rows"] == 1
        assert result["anomalies"]["anomalies"] == []
        assert client.write_log_rows([*rows(), *rows(1, rows_processed=500)], sequence=0)["already_written"]
        direct = ray.get(client.coordinator.submit.remote(rows(2, rows_processed=500)))
        assert (direct["rows_written"], direct["quality_results"]["invalid_rows"]) == (0, 2)
        assert client.validate_log_data_quality(rows(3, rows_processed=500))["invalid_rows"] == 3
        assert client.replay_quarantine(lambda row, _: {**row, "rows_processed": 1})["replayed"] == 3
        assert client.replay_quarantine()["already_replayed"] == 3
        assert client.optimize_table(enable_partitioning=True)["optimized"]
        assert client.maintain_table({"analyze": True})["results"]["analyze"]["num_files"] == 1
        assert client.generate_summary_report()["total_executions"] == 10
        assert client.get_table_history(1)["versions"][0]["operation"] == "OPTIMIZE"
        info = client.get_table_info()
    kept = DeltaTable(f"{info['location']}_quality")
    # One for each batch, and one for each row that was replayed.
    assert kept.count() == 2 + 3
    report = service.reconcile()
    assert report["consistent"], report


def test_wrong_rules_are_refused_where_the_service_is_started(start: StartService) -> None:
    with pytest.raises(WriterConfigurationError, match="validation_rules"):
        start(validation_rules={"phase": "nope = 1"})


def test_futures_give_results_in_any_number_and_flush_waits_for_them(service: Service) -> None:
    with connect(service.name) as client:
        before = client.get_table_info()["row_count"]
        futures = [client.submit_log_rows(rows(3)) for _ in range(300)]
        assert all(isinstance(future, Future) for future in futures)
        assert client.flush(60)
        assert sorted(int(f.result()["batch_id"].rsplit(":", 1)[1]) for f in futures) == list(range(300))
        assert client.get_table_info()["row_count"] == before + 900


def test_a_refused_row_comes_through_the_future_with_its_own_exception(service: Service) -> None:
    with connect(service.name) as client:
        future = client.submit_log_rows([{"phase": "nowhere", "step_name": "x"}])
        with pytest.raises(WriterValidationError) as caught:
            future.result(30)
        assert caught.value.validation_errors[0]["row"] == 0
        with pytest.raises(WriterSchemaError):
            client.write_log_rows([{"phase": "bronze", "step_name": "x", "rows_processed": "many"}])


def test_numbers_and_keys_mean_the_same_as_in_process(service: Service) -> None:
    with connect(service.name, producer_id="numbers") as client:
        assert client.write_log_rows(rows(), sequence=0)["rows_written"] == 7
        again = client.write_log_rows(rows(), sequence=0)
        assert (again["rows_written"], again["already_written"]) == (0, True)
        with pytest.raises(WriterValidationError, match=r"gap.*is 1"):
            client.write_log_rows(rows(), sequence=5)
        with pytest.raises(WriterValidationError, match="other content"):
            client.write_log_rows(rows(2), sequence=0)
        assert client.write_log_rows(rows(2))["batch_id"] == "numbers:1"
        assert client.write_log_rows(rows(), idempotency_key="once")["rows_written"] == 7
        assert client.write_log_rows(rows(), idempotency_key="once")["already_written"]
        assert client.submit_log_rows(rows(), idempotency_key="once").result(30)["already_written"]
    with connect(service.name, producer_id="numbers") as successor:
        assert successor.committed_sequence == 1
        assert successor.write_log_rows(rows(2))["batch_id"] == "numbers:2"


def test_write_batches_goes_through_the_service_and_can_be_repeated(service: Service) -> None:
    with connect(service.name, producer_id="bulk") as client:
        first = client.write_batches((pa.Table.from_pylist(rows(100)) for _ in range(20)), sequence=0)
        assert (first["batches"], first["rows_written"]) == (20, 2000)
        second = client.write_batches(([*rows(100)] for _ in range(20)), sequence=0)
        assert (second["batches"], second["already_written"], second["rows_written"]) == (0, 20, 0)


def test_the_coordinator_takes_dicts_and_arrow_without_a_client(service: Service) -> None:
    with connect(service.name) as client:
        coordinator = client.coordinator
        assert ray.get(coordinator.submit.remote(rows()))["rows_written"] == 7
        assert ray.get(coordinator.submit.remote(pa.Table.from_pylist(rows(9))))["rows_written"] == 9
        keyed = [ray.get(coordinator.submit.remote(rows(), idempotency_key="direct")) for _ in range(2)]
        assert [result["already_written"] for result in keyed] == [False, True]
        with pytest.raises(WriterValidationError):
            ray.get(coordinator.submit.remote([{"phase": "bronze"}]))
        numbered = [ray.get(coordinator.submit.remote(rows(), producer_id="d", sequence=0)) for _ in range(2)]
        assert [result["already_written"] for result in numbered] == [False, True]
        for wrong in (
            {"sequence": -1, "producer_id": "d"},
            {"sequence": 0},
            {"idempotency_key": ""},
            {"idempotency_key": "k", "sequence": 0, "producer_id": "d"},
            {"producer_id": "", "sequence": 0},
        ):
            with pytest.raises(WriterError):
                ray.get(coordinator.submit.remote(rows(), **wrong))


def test_rows_without_a_client_are_looked_at_for_anomalies(start: Callable[..., Service]) -> None:
    submit = start(enable_anomaly_detection=True).coordinator.submit
    step = {"phase": "gold", "step_name": "s", "pipeline_id": "p", "rows_processed": 100}
    for number in range(30):
        row = {**step, "run_id": f"r{number}", "duration_secs": 10 + number % 3}
        assert ray.get(submit.remote([row]))["anomalies"]["anomaly_count"] == 0
    found = ray.get(submit.remote([{**step, "run_id": "late", "duration_secs": 900.0}]))["anomalies"]
    assert [entry["type"] for entry in found["anomalies"]] == ["duration"]


def test_tasks_actors_and_asyncio_can_all_use_the_service(service: Service) -> None:
    name = service.name

    @ray.remote(num_cpus=0)
    def task() -> int:
        with connect(name) as client:
            return int(client.write_log_rows(rows())["rows_written"])

    async def awaited() -> int:
        with connect(name) as client:
            one, *others = [client.submit_log_rows(rows()) for _ in range(4)]
            written = [(await asyncio.wrap_future(one))["rows_written"], (await others[0])["rows_written"]]
            written += [result["rows_written"] for result in await asyncio.gather(*others[1:])]
            with pytest.raises(WriterValidationError):
                await client.submit_log_rows([{"phase": "nope", "step_name": "s"}])
            return sum(written)

    assert ray.get(task.remote(), timeout=90) == 7
    assert asyncio.run(awaited()) == 28


def test_many_threads_share_one_client_and_many_clients_one_service(service: Service) -> None:
    before = connect(service.name).get_table_info()["row_count"]
    clients = [connect(service.name) for _ in range(3)]
    with ThreadPoolExecutor(12) as threads:
        results = list(threads.map(lambda i: clients[i % 3].write_log_rows(rows(5)), range(120)))
    assert sum(result["rows_written"] for result in results) == 600
    assert clients[0].get_table_info()["row_count"] == before + 600
    for client in clients:
        client.close()
    assert service.reconcile()["consistent"]


def _eventually(holds: Callable[[], bool]) -> bool:
    """Whether it does within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False


def test_clients_have_windows_by_the_weights_of_the_configuration(start: Callable[..., Service]) -> None:
    service = start(client_weights={"billing": 3, "batch-*": 0.5}, memory_fraction=0.1)
    with connect(service.name, producer_id="billing") as heavy, connect(service.name, producer_id="batch-7") as light:
        with connect(service.name) as anybody:
            for client in (heavy, light, anybody) * 2:  # a window that others shrank is told with the next answer
                client.write_log_rows(rows())
            windows = [client.get_memory_usage()["budget_mb"] for client in (heavy, light, anybody)]
            assert windows == pytest.approx([6 * windows[1], windows[1], 2 * windows[1]], rel=1e-3)
            assert sorted(service.metrics()["client_weights"].values()) == [0.5, 1.0, 3]
        assert "client_weights" in service.configuration()
    with pytest.raises(WriterConfigurationError, match="client_weights"):
        Service.start(WriterConfig(warehouse=heavy.config.warehouse, memory_fraction=0.1), name=service.name)


def test_health_metrics_and_reconcile_say_what_the_contract_lists(service: Service) -> None:
    with connect(service.name) as client:
        client.write_log_rows(rows())
        health = service.health()
        assert health["status"] == "ok", health["reasons"]
        for actor in (health["coordinator"], health["metrics"], health["maintenance"], *health["writers"]):
            assert {"pid", "node_id", "state", "restarts", "last_seen"} <= set(actor)
            assert actor["pid"] > 0
        metrics = service.metrics()
        assert metrics["rows_total"] >= 7
        for name in ("bytes", "batches", "commits"):
            assert metrics[f"{name}_total"] > 0
            assert metrics[f"{name}_per_sec"] >= 0
        for stage in ("gate", "encode", "wait", "stage", "commit", "total"):
            assert 0 <= metrics["latency_secs"][stage]["p50"] <= metrics["latency_secs"][stage]["p99"]
        assert metrics["in_flight_bytes"] <= metrics["budget_bytes"]
        assert {"coordinator", "metrics", "maintenance"} < set(metrics["actor_memory_bytes"])
        assert client.producer_id in metrics["producers"]
        assert metrics["tables"][client.get_table_info()["table_fqn"]]["rows"] >= 7
        assert metrics["histograms"]["total"]["count"] >= 1
        stages = {"gate", "encode", "wait", "stage", "commit", "total"}
        for figures in (
            metrics["producers"][client.producer_id],
            metrics["tables"][client.get_table_info()["table_fqn"]],
        ):
            assert stages <= set(figures["stages"])
            assert all(figures["stages"][stage]["count"] >= 1 for stage in stages)
        assert _eventually(lambda: "ack" in service.metrics()["producers"][client.producer_id]["stages"])
        seen = service.metrics()["producers"][client.producer_id]["stages"]
        assert seen["ack"]["count"] == 1
        assert seen["ack"]["sum_secs"] >= seen["total"]["sum_secs"]
        assert service.history()[-1]["rows_total"] >= 7
        assert set(metrics["client_queues"].values()) == {0}
        assert f'sfwriter_producer_rows_total{{producer="{client.producer_id}",service=' in service.prometheus()
        ledger = service.reconcile()
        assert ledger["consistent"]
        entry = ledger["producers"][client.producer_id]
        assert (entry["accepted"], entry["committed"], entry["in_flight"], entry["refused"]) == (1, 1, 0, 0)
        assert entry["quarantined"] == 0
        assert entry["table"] == 0


def test_start_attaches_and_another_configuration_is_told_apart(service: Service) -> None:
    running = ray.get(service.coordinator.configuration.remote())
    assert Service.start(running, name=service.name).name == service.name
    with pytest.raises(WriterConfigurationError, match="expected a WriterConfig"):
        Service.start("logs", name=service.name)  # type: ignore[arg-type]
    with pytest.raises(WriterConfigurationError, match="compression") as caught:
        Service.start(running.replace(compression="zstd"), name=service.name)
    assert len(caught.value.problems) == 1


def test_an_unknown_service_says_how_to_start_it(service: Service) -> None:
    with pytest.raises(WriterError, match="no service 'nobody'") as caught:
        connect("nobody")
    assert "Service.start" in str(caught.value)
    with pytest.raises(WriterConfigurationError):
        connect("not a name!")
    with pytest.raises(WriterConfigurationError):
        connect(service.name, on_full="explode")


def test_a_client_may_judge_its_rows_in_another_mode_than_the_service(start: Callable[..., Service]) -> None:
    service = start()
    bad = {"phase": "lead", "step_name": "s"}
    with connect(service.name) as client, pytest.raises(WriterValidationError):
        client.write_log_rows([bad])
    with connect(service.name, schema_validation_mode="lenient") as client:
        result = client.write_log_rows([*rows(), bad])
        assert (result["rows_written"], result["quarantined_rows"]) == (7, 1)
        assert client.quarantined()[0]["row"] == bad
        ledger = service.reconcile()
        assert (ledger["quarantined_rows"], ledger["producers"][client.producer_id]["quarantined"]) == (1, 1)
    with pytest.raises(WriterConfigurationError, match="schema_validation_mode"):
        connect(service.name, schema_validation_mode="loose")


def test_a_batch_larger_than_the_budget_says_how_to_split_it(start: Callable[..., Service]) -> None:
    service = start(memory_fraction=0.0005)
    with connect(service.name) as client, pytest.raises(WriterPerformanceError, match="budget") as caught:
        client.write_log_rows(pa.concat_tables([pa.Table.from_pylist(log_rows(2000, seed=1))] * 60))
    assert "write_batches" in str(caught.value)
    assert service.metrics()["in_flight_bytes"] == 0


def test_a_full_window_raises_at_once_where_the_client_asked_for_it(start: Callable[..., Service]) -> None:
    service = start(memory_fraction=0.001)
    with connect(service.name, on_full="raise") as client:
        batch = pa.Table.from_pylist(log_rows(2000, seed=1))
        futures, refused = [], 0
        for _ in range(200):
            try:
                futures.append(client.submit_log_rows(batch))
            except WriterPerformanceError:  # noqa: PERF203  each refusal counts
                refused += 1
        assert refused
        assert sum(future.result(60)["rows_written"] for future in futures) == 2000 * len(futures)
        assert client.get_table_info()["row_count"] == 2000 * len(futures)


def test_lenient_rows_go_to_quarantine_through_the_service(start: Callable[..., Service]) -> None:
    service = start(schema_validation_mode="lenient")
    with connect(service.name) as client:
        result = client.write_log_rows([*rows(3), {"phase": "nowhere", "step_name": "x"}])
        assert (result["rows_written"], result["quarantined_rows"]) == (3, 1)
        assert client.quarantined()[0]["row"]["phase"] == "nowhere"
        many = [client.submit_log_rows([*rows(2), {"phase": "nowhere", "step_name": str(i)}]) for i in range(50)]
        assert sum(future.result(60)["quarantined_rows"] for future in many) == 50
        assert len(client.quarantined(1000)) == 51
        assert client.get_table_info()["row_count"] == 103
    assert service.reconcile()["quarantined_rows"] == 51


def test_new_columns_arrive_through_the_service(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name) as client, connect(service.name) as other:
        client.write_log_rows(rows(2))
        client.write_log_rows(rows(2, team="blue"))
        assert "team" in client.get_table_info()["columns"]
        other.write_log_rows(rows(2, team="red"))
        with pytest.raises(WriterSchemaError):
            other.write_log_rows(rows(2, team=5))
        assert client.get_table_info()["row_count"] == 6


def test_after_drain_nothing_is_taken_and_after_stop_every_future_is_answered(start: Callable[..., Service]) -> None:
    service = start()
    client = connect(service.name)
    futures = [client.submit_log_rows(rows()) for _ in range(100)]
    assert client.flush(60)
    assert service.drain(30) == {"drained": True, "in_flight_batches": 0}
    with pytest.raises(WriterError, match=f"service '{service.name}' is draining or was stopped"):
        client.write_log_rows(rows())
    assert service.stop()["stopped"]
    assert service.health()["reasons"][0] == "there is no coordinator"
    with pytest.raises(WriterError, match="it was stopped"):
        service.reconcile()
    assert service.stop()["stopped"] is False
    assert sum(future.result(30)["rows_written"] for future in futures) == 700
    with pytest.raises(WriterError):
        client.write_log_rows(rows())
    with pytest.raises(WriterError):
        connect(service.name)
    for role in ("coordinator", "metrics", "maintenance"):
        with pytest.raises(ValueError, match="Failed to look up actor"):
            ray.get_actor(actor_name(service.name, role), namespace=NAMESPACE)


def test_the_service_outlives_the_process_that_started_it(ray_address: str, tmp_path: Any) -> None:
    code = f"""
from actors import Service, connect
from sfwriter import WriterConfig
Service.start(WriterConfig(warehouse={str(tmp_path)!r}, memory_fraction=0.02), name="outliving")
connect("outliving").write_log_rows([{{"phase": "gold", "step_name": "s"}}])
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    service = Service.attach("outliving")
    try:
        with connect("outliving") as client:
            assert client.get_table_info()["row_count"] == 1
            client.write_log_rows(rows())
            assert client.get_table_info()["row_count"] == 8
    finally:
        service.stop()


def test_figures_are_there_though_the_coordinator_does_not_answer(service: Service) -> None:
    with connect(service.name) as client:
        client.write_log_rows(rows())
        known = service.metrics()
        with frozen(service.health()["coordinator"]["pid"]):
            stale = service.metrics()
            assert stale["rows_total"] >= known["rows_total"] >= 7
            assert stale["age_secs"] >= 1.0
            waits = client.submit_log_rows(rows())
            assert not client.flush(0.2)
            assert [batch["sequence"] for batch in client.uncommitted()] == [1]
        assert waits.result(timeout=30)["rows_written"] == 7
        assert service.metrics()["age_secs"] < 1.0


def test_who_comes_when_a_service_is_draining_is_told_so(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name) as client:
        client.write_log_rows(rows())
        service.drain()
        with pytest.raises(WriterError, match=f"{service.name}.* draining or was stopped.*nothing of the call"):
            client.write_log_rows(rows())
        with pytest.raises(RayTaskError, match="draining or was stopped"):
            ray.get(client.coordinator.submit.remote(rows()))
        assert client.get_table_info()["row_count"] == 7


def parcel(producer_id: str, payload: bytes, rows: int, nbytes: int) -> Parcel:
    entry = Entry(
        producer_id, None, "digest", "stamp", assigned=True, resent=False, checked=True, expires=True, patient=False,
        wait_secs=None, replaces=frozenset(), shares=(Share(None, 0, 0, rows, nbytes),),
    )  # fmt: skip
    return Parcel(0, (entry,), Payload(inline=payload), 0.0)


def test_a_payload_that_is_not_what_it_says_is_refused_and_costs_nobody_else_anything(service: Service) -> None:
    honest, ((share,),) = pack([EncodedBatch(pa.Table.from_pylist(rows(3)), None, "digest", "r")], "s.q")
    payload = honest.to_pybytes()
    heavy, _ = pack([EncodedBatch(log_table(2000), None, "digest", "r")], "s.q")
    with connect(service.name) as client:
        before = client.get_table_info()["row_count"]
        strange = [
            parcel("a", b"no Arrow", 3, share.nbytes),
            parcel("b", payload[:-100], 3, share.nbytes),
            parcel("c", payload, 4, share.nbytes),
            parcel("d", heavy.to_pybytes(), 2000, 1),
        ]
        answers = [client.coordinator.deliver.remote("stranger", one) for one in strange]
        futures = [client.submit_log_rows(rows()) for _ in range(20)]
        assert sum(future.result(60)["rows_written"] for future in futures) == 140
        for answer in answers:
            (outcome,) = ray.get(answer, timeout=60)["answers"]
            assert outcome[0] == "STAGING_FAILED"
            assert "payload" in str(outcome[-1])
        assert client.get_table_info()["row_count"] == before + 140
    assert service.health()["status"] == "ok"


def test_what_is_not_settled_in_time_is_named(start: Callable[..., Service]) -> None:
    service = start()
    client = connect(service.name, producer_id="slow")
    client.write_log_rows(rows())
    coordinator = psutil.Process(service.health()["coordinator"]["pid"])
    coordinator.suspend()
    try:
        client.submit_log_rows(rows(2), sequence=1)
        assert client.flush(0.5) is False
        with pytest.raises(WriterPerformanceError, match="1 batches were not settled") as caught:
            client.close(0.5)
        assert caught.value.context["uncommitted"] == [{"producer_id": "slow", "sequence": 1, "rows": 2, "sent": True}]
    finally:
        coordinator.resume()
    client.close()
    client.close()
    assert connect(service.name, producer_id="slow").committed_sequence == 1


def test_a_client_of_another_version_is_told_both(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.service.__version__", "9.9.9")
    with pytest.raises(WriterConfigurationError, match=r"9\.9\.9.*runs 0\."):
        connect(service.name)


def test_writers_that_are_idle_go_down_to_the_last_one(
    ray_address: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.pool.IDLE_S", 0.5)
    spec = log_table_spec(WriterConfig(warehouse=str(tmp_path)))
    DeltaRsEngine().open(spec).ensure()

    async def work() -> tuple[int, int, int]:
        pool = WriterPool("idle", 2)
        try:
            events = []
            while len(pool.seats) < 2 or any(seat.state == "starting" for seat in pool.seats.values()):
                events += await asyncio.gather(*(pool.stage(number, spec, []) for number in range(4)))
            assert all(isinstance(event, Staged) for event in events)
            most = len(pool.seats)
            await asyncio.sleep(1.5)
            await pool.stage(99, spec, [])
            return most, len(pool.seats), pool.deaths
        finally:
            pool.stop()

    assert asyncio.run(asyncio.wait_for(work(), 90)) == (2, 1, 0)


def test_rows_that_died_with_their_client_are_taken_from_its_successor(service: Service) -> None:
    name, before = service.name, connect(service.name).get_table_info()["row_count"]
    heavy = log_table(3_000)

    @ray.remote(num_cpus=0)
    class Client:
        def begin(self) -> int:
            """Send rows that wait for company, by reference, and wait for nothing."""
            self.client = connect(name, producer_id="heir")
            self.thread = threading.Thread(target=self.client.write_batches, args=[[heavy]], kwargs={"sequence": 0})
            self.thread.start()
            time.sleep(0.5)  # sent, and not yet staged: it lingers at the coordinator
            return os.getpid()

    pid = ray.get(Client.remote().begin.remote(), timeout=60)
    psutil.Process(pid).kill()
    with connect(name, producer_id="heir") as heir:
        result = heir.submit_log_rows(heavy, sequence=0).result(60)
        assert result["batch_id"] == "heir:0"
        assert heir.get_table_info()["row_count"] == before + 3_000


def test_a_process_that_ends_settles_what_it_submitted(service: Service) -> None:
    with connect(service.name) as client:
        before = client.get_table_info()["row_count"]
        program = (
            "from actors import connect; from sfwriter.testing.rows import log_rows\n"
            f"client = connect({service.name!r}); [client.submit_log_rows(log_rows(7)) for _ in range(100)]"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, "are not settled" in done.stderr) == (0, False), done.stderr[-2000:]
        assert client.get_table_info()["row_count"] == before + 700


def test_errors_from_afar_are_of_their_own_class_and_can_be_pickled(service: Service) -> None:
    submit = connect(service.name).coordinator.submit
    with pytest.raises(RayTaskError) as caught:
        ray.get(submit.remote([{"phase": "bronze"}]))
    assert type(caught.value.cause) is WriterValidationError
    with pytest.raises(WriterError) as told:
        service.maintain({"optimise": True})
    assert type(told.value) is WriterValidationError
    assert pickle.loads(pickle.dumps(told.value)).suggestions == told.value.suggestions
