"""A service's figures as Prometheus reads them.

Receives: what `Service.metrics` gives.
Produces: the text of Prometheus' exposition format.
Guarantees: counters end in `_total`, times are in seconds, sizes in bytes; labels are escaped.
Never does: look at the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

COUNTERS = {
    "rows_total": "Rows acknowledged",
    "bytes_total": "Arrow bytes of rows acknowledged",
    "batches_total": "Batches acknowledged",
    "commits_total": "Delta commits",
    "quarantined_rows_total": "Rows set aside",
    "refusals_total": "Batches refused",
    "retries_total": "Stagings, commits and looks tried again",
    "writer_deaths_total": "Writers that died or were replaced",
}
GAUGES = {
    "in_flight_bytes": "Bytes in flight",
    "budget_bytes": "Bytes that may be in flight",
    "in_flight_batches": "Batches in flight",
    "clients": "Clients",
}


def exposition(service: str, metrics: Mapping[str, Any]) -> str:
    """The text; without figures, that of none."""
    registry = CollectorRegistry()
    registry.register(_Figures(service, metrics))
    return generate_latest(registry).decode()


class _Figures(Collector):
    def __init__(self, service: str, metrics: Mapping[str, Any]) -> None:
        self._service = service
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        found, service = self._metrics, [self._service]
        for name, text in COUNTERS.items():
            if name in found:
                counter = CounterMetricFamily(f"sfwriter_{name}", text, labels=["service"])
                counter.add_metric(service, found[name])
                yield counter
        for name, text in GAUGES.items():
            if name in found:
                gauge = GaugeMetricFamily(f"sfwriter_{name}", text, labels=["service"])
                gauge.add_metric(service, found[name])
                yield gauge
        memory = GaugeMetricFamily("sfwriter_actor_memory_bytes", "Memory of an actor", labels=["service", "actor"])
        for actor, nbytes in found.get("actor_memory_bytes", {}).items():
            if nbytes is not None:
                memory.add_metric([*service, actor], nbytes)
        yield memory
        stages = HistogramMetricFamily("sfwriter_stage_secs", "Time of each stage", labels=["service", "stage"])
        for stage, figures in found.get("histograms", {}).items():
            _add(stages, [*service, stage], figures)
        yield stages
        for label, by in (("table", "tables"), ("producer", "producers")):
            rows = CounterMetricFamily(f"sfwriter_{label}_rows", f"Rows by {label}", labels=["service", label])
            took = HistogramMetricFamily(f"sfwriter_{label}_ack_secs", "Time to the ack", labels=["service", label])
            # As sums and counts: a hundred keys with seven stages each would be 20,000 lines of buckets.
            parts = SummaryMetricFamily(
                f"sfwriter_{label}_stage_secs", f"Time of each stage by {label}", labels=["service", label, "stage"]
            )
            for key, figures in found.get(by, {}).items():
                rows.add_metric([*service, key], figures["rows"])
                _add(took, [*service, key], figures["latency"])
                for stage, spent in figures["stages"].items():
                    parts.add_metric([*service, key, stage], spent["count"], spent["sum_secs"])
            yield rows
            yield took
            yield parts


def _add(family: HistogramMetricFamily, labels: list[str], figures: Mapping[str, Any]) -> None:
    buckets = [(bound, float(count)) for bound, count in figures["buckets"].items()]
    family.add_metric(labels, buckets, figures["sum_secs"])
