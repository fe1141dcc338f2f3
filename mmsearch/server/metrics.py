"""What is counted for Prometheus (observing.py counts and shows it)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The series of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ["method", "route"]
        self.requests = Counter("mmsearch_requests", "Requests answered.", [*labels, "status"], registry=self.registry)
        self.seconds = Histogram(
            "mmsearch_request_seconds",
            "From the first byte of a request to the last of its answer.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.going = Gauge("mmsearch_requests_in_progress", "Requests at work.", registry=self.registry)
        self.images = Gauge("mmsearch_images", "Images of a collection.", ["collection"], registry=self.registry)
