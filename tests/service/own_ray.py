"""A program: a service with a Ray of its own, and what is left when it is stopped. Prints JSON."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import ray

from actors import Service, connect
from sfwriter import WriterConfig, WriterError

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = {"phase": "gold", "step_name": "s"}
PATIENCE_S = 20


def main(warehouse: str) -> dict[str, Any]:
    config = WriterConfig(warehouse=warehouse, memory_fraction=0.02)
    service = Service.start(config, name="own")
    client = connect("own")
    futures = [client.submit_log_rows([ROW]) for _ in range(20)]
    client.flush(PATIENCE_S)
    late: list[str] = []
    beside = [threading.Thread(target=write_on, args=(late,), daemon=True) for _ in range(4)]
    for thread in beside:
        thread.start()
    time.sleep(1)  # each of them has calls on their way by then; what follows holds for fewer, too
    drained = service.drain(PATIENCE_S)["drained"]
    refused = said(lambda: client.write_log_rows([ROW]))
    stopped = [service.stop(), service.stop(), service.stop()]
    for thread in beside:
        thread.join(PATIENCE_S)
    after = {
        "health": service.health,
        "metrics": service.metrics,
        "history": service.history,
        "prometheus": service.prometheus,
        "configuration": service.configuration,
        "reconcile": service.reconcile,
        "maintain": service.maintain,
        "drain": service.drain,
        "write": lambda: client.write_log_rows([ROW]),
        "submit": lambda: client.submit_log_rows([ROW]).result(PATIENCE_S),
        "committed_sequence": lambda: client.committed_sequence,
        "flush": client.flush,
        "close": client.close,
        "connect": lambda: connect("own"),
        "attach": lambda: Service.attach("own"),
    }
    found = {name: said(call) for name, call in after.items()}
    alone = not ray.is_initialized()
    with Service.start(config, name="own") as again, connect("own") as other:
        other.write_log_rows([ROW])
        rows = other.export_analytics_data(limit=None, filters={"step_name": "s"})["records_exported"]
        consistent = again.reconcile()["consistent"]
    return {
        "drained": drained,
        "refused": refused,
        "stopped": [said_of["stopped"] for said_of in stopped],
        "rows": [future.result(PATIENCE_S)["rows_written"] for future in futures],
        "after": found,
        "beside": late,
        "alone": alone,
        "rows_in_all": rows,
        "consistent": consistent,
    }


def write_on(told: list[str]) -> None:
    """Write until that fails for another reason than the draining."""
    client = connect("own")
    while True:
        try:
            client.write_log_rows([{**ROW, "step_name": "beside"}])
        except WriterError as error:  # noqa: PERF203  it goes on
            if "draining" not in str(error):
                told.append(str(error))
                return


def said(call: Callable[[], Any]) -> list[str]:
    """What a call gave or raised, and that it did so in time."""

    def late(*_: Any) -> None:
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    began = time.monotonic()
    try:
        found = ["gave", str(call())]
    except WriterError as error:
        found = ["raised", f"{type(error).__name__}: {error}"]
    except BaseException as error:  # noqa: BLE001  told as what it is
        found = ["failed", f"{type(error).__name__}: {error} after {time.monotonic() - began:.1f} s"]
    signal.alarm(0)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
