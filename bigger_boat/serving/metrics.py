"""What Prometheus reads at ``/metrics``. Every label has few values: routes, methods, statuses, endpoints.

Belongs here: names, units and buckets. Does not belong here: when something is counted (``guard.py``, ``batching.py``).
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_BUCKETS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 4.0, 16.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Serving = Callable[[], list[tuple[str, str, str]]]
"""What serves now: endpoint, model and version of each."""


class Metrics:
    """The counts of one server. ``in_flight`` is the number of requests that are being answered."""

    def __init__(self, serving: Serving):
        self.registry = CollectorRegistry()
        self.in_flight = 0
        self._by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "bigger_boat_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._latency = Histogram(
            "bigger_boat_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ("route",),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._batches = Histogram(
            "bigger_boat_batch_sessions",
            "Sessions answered together.",
            ("endpoint",),
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self._batch_seconds = Counter(
            "bigger_boat_batch_seconds", "Time spent in models.", ("endpoint",), registry=self.registry
        )
        self._logged = Counter("bigger_boat_answers_logged", "Answers written to the log.", registry=self.registry)
        self._unlogged = Counter(
            "bigger_boat_answers_not_logged", "Answers that the log had no room for.", ("why",), registry=self.registry
        )
        self._shadows = Counter(
            "bigger_boat_shadow_answers",
            "Requests that a challenger in the shadow was asked, too: the same first answer, another, or left out.",
            ("endpoint", "outcome"),
            registry=self.registry,
        )
        self._collected = Counter(
            "bigger_boat_collected_events", "Events sent to /collect.", ("outcome",), registry=self.registry
        )
        in_flight = Gauge("bigger_boat_requests_in_flight", "Requests being answered.", registry=self.registry)
        in_flight.set_function(lambda: self.in_flight)
        self.registry.register(_ServingCollector(serving))
        ProcessCollector(registry=self.registry)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        key = route, method if method in _METHODS else "other", status
        if (known := self._by_request.get(key)) is None:  # finding a label's values takes longer than counting
            known = self._by_request[key] = self._requests.labels(*key), self._latency.labels(route)
        answered, latency = known
        answered.inc()
        latency.observe(seconds)

    def observe_batch(self, endpoint: str, sessions: int, seconds: float) -> None:
        self._batches.labels(endpoint).observe(sessions)
        self._batch_seconds.labels(endpoint).inc(seconds)

    def observe_logged(self, answers: int) -> None:
        self._logged.inc(answers)

    def observe_unlogged(self, why: str, answers: int) -> None:
        self._unlogged.labels(why).inc(answers)

    def observe_shadow(self, endpoint: str, outcome: str) -> None:
        self._shadows.labels(endpoint, outcome).inc()

    def watch_queue(self, endpoint: str, waiting: Callable[[], int]) -> None:
        """Show how many sessions wait in the queue of an endpoint."""
        name, text = f"bigger_boat_queue_sessions_{endpoint}", f"Sessions that wait for {endpoint}."
        Gauge(name, text, registry=self.registry).set_function(waiting)

    def watch_spool(self, waiting_bytes: Callable[[], int]) -> None:
        """Show how much has been collected and has not landed."""
        text = "Collected events that have not reached the landing zone."
        Gauge("bigger_boat_collect_spool_bytes", text, registry=self.registry).set_function(waiting_bytes)

    def count_collected(self, outcome: str, events: int) -> None:
        """Count events by what became of them: ``accepted``, ``duplicate`` or ``rejected``."""
        self._collected.labels(outcome).inc(events)

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _ServingCollector:
    """Names the versions that serve at the moment of the question: no label value stays behind after a swap."""

    def __init__(self, serving: Serving):
        self._serving = serving

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "bigger_boat_serving", "1 for each version that serves.", labels=("endpoint", "model", "version")
        )
        for labels in self._serving():
            family.add_metric(labels, 1)
        yield family
