"""What a server counts, in the text format of Prometheus.

Labels have few values: the paths of routes as they are declared, the names of the runs that the server offers, and of
adapters those of their runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)

# Set in the context of the work with a run: what counts tokens for it.
counting: ContextVar[Callable[[int, int], None] | None] = ContextVar("counting", default=None)


def count_tokens(read: int, written: int) -> None:
    """Count tokens of the run with which this context works."""
    if (count := counting.get()) is not None:
        count(read, written)


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"afresh_{name}", about, labels, registry=self.registry)

        def seconds(name: str, about: str, label: str) -> Histogram:
            return Histogram(f"afresh_{name}", about, [label], registry=self.registry, buckets=SECONDS)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"afresh_{name}", about, labels, registry=self.registry)

        self.requests = counter("requests", "Requests that were answered.", "route", "method", "status")
        self.errors = counter("errors", "Requests that were answered with a status of 400 or more.", "route")
        self.seconds = seconds("request_seconds", "Until the end of an answer.", "route")
        self.work = seconds("run_seconds", "Work of requests with a run.", "run")
        self.failed = counter("run_errors", "Work with a run that raised an error.", "run")
        self.tokens = counter("tokens", "Tokens that a run read and wrote.", "run", "kind")
        self.active = gauge("requests_active", "Requests that are being answered.")
        self.held = [
            gauge("weights_bytes", "Weights that are held.", "run"),
            gauge("calls_waiting", "Calls that a run has not finished.", "run"),
        ]

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request to a declared path; empty for what has none."""
        route, method = route or "none", method if method in METHODS else "other"
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if status >= 400:
            self.errors.labels(route).inc()

    @contextmanager
    def working(self, run: str) -> Iterator[None]:
        """Counts the work with a run inside the block."""
        begun = time.monotonic()

        def count(read: int, written: int) -> None:
            self.tokens.labels(run, "read").inc(read)
            self.tokens.labels(run, "written").inc(written)

        before = counting.set(count)
        try:
            with self.failed.labels(run).count_exceptions():
                yield
        finally:
            counting.reset(before)
            self.work.labels(run).observe(time.monotonic() - begun)

    def text(self, active: int, held: dict[str, tuple[int, int]]) -> str:
        """All counts. `held`: of each run that may be seen, the bytes of its weights and its calls that wait."""
        self.active.set(active)
        for gauge, place in zip(self.held, (0, 1), strict=True):
            gauge.clear()
            for name, values in held.items():
                gauge.labels(name).set(values[place])
        return generate_latest(self.registry).decode()
