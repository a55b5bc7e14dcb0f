"""What /metrics says. Counts what the Observer is told and what a request was; reads gauges when it is asked.

Every label has a fixed set of values: nothing that a caller sends becomes a series.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from clipsrv import __version__
from clipsrv.serving.observer import HIT, MISS, SHARED, Observer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
#: Which refusals count as rejected work, by error code.
_REJECTED = {"overloaded": "full", "deadline_exceeded": "deadline", "shutting_down": "shutdown"}
#: Seconds between two looks at the loop's lag, and over which the longest is shown: a usual time between two scrapes.
_LAG_EVERY, _LAG_OVER = 0.1, 15.0

Gauges = Mapping[str, tuple[str, Callable[[], float]]]
#: Every model served, with its facts where it is loaded, the default first.
Models = Callable[[], Mapping[str, Mapping[str, str]]]


class Metrics(Observer):
    """One registry for one application; nothing is global."""

    def __init__(self) -> None:
        disable_created_metrics()  # the library's own switch: half as many series, and nobody reads when they began
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "clipsrv_requests", "Requests answered; 499 if the caller had gone", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "clipsrv_request_seconds", "Seconds to answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self._errors = Counter("clipsrv_errors", "Errors answered", ["code"], registry=registry)
        self._rejected = Counter(
            "clipsrv_queue_rejected", "Requests refused for want of slots or time", ["reason"], registry=registry
        )
        self._cancelled = Counter("clipsrv_cancelled", "Work whose caller had gone", ["stage"], registry=registry)
        self._failures = Counter("clipsrv_inference_failures", "Single items that failed", ["code"], registry=registry)
        self._streams = Counter(
            "clipsrv_streams", "Streams that ended; abandoned if the caller had gone", ["outcome"], registry=registry
        )
        self._streaming = Gauge("clipsrv_streams_inflight", "Streams in work", registry=registry)
        self._images = Counter("clipsrv_images", "Images decoded", registry=registry)
        self._texts = Counter("clipsrv_texts", "Texts tokenized", registry=registry)
        self._unknown_script = Counter(
            "clipsrv_texts_unknown_script", "Texts without a letter that the model reads", registry=registry
        )
        self._batch_size = Histogram("clipsrv_batch_size", "Items of a batch", buckets=_SIZES, registry=registry)
        self._embedded = Counter(
            "clipsrv_model_embedded", "Images and texts that a model has computed", ["model"], registry=registry
        )
        self._computing = Counter(
            "clipsrv_model_inference_seconds", "Seconds that a model has computed", ["model"], registry=registry
        )
        self._looked_up = Counter(
            "clipsrv_cache_items",
            "Images and texts looked for among the vectors kept: hit, miss, or shared with another request",
            ["outcome"],
            registry=registry,
        )
        self._evicted = Counter("clipsrv_cache_evicted", "Vectors that made room for others", registry=registry)
        self._loads = Counter(
            "clipsrv_model_loads", "Models loaded, and tries that failed", ["model", "outcome"], registry=registry
        )
        stages = Histogram("clipsrv_stage_seconds", "Seconds", ["stage"], buckets=_SECONDS, registry=registry)
        self._decode, self._tokenize, self._queue, self._inference, self._request = (
            stages.labels(stage) for stage in ("decode", "tokenize", "queue", "inference", "request")
        )
        self._lag = Gauge(
            "clipsrv_loop_lag_seconds", "How late the event loop was, at worst of 15 seconds", registry=registry
        )
        Info("clipsrv_build", "The clipsrv that runs", registry=registry).info({"version": __version__})
        for reason in _REJECTED.values():
            self._rejected.labels(reason)
        for stage in ("upload", "queue", "compute"):
            self._cancelled.labels(stage)
        for outcome in ("complete", "incomplete", "abandoned"):
            self._streams.labels(outcome)
        for outcome in (HIT, MISS, SHARED):
            self._looked_up.labels(outcome)

    def decoded(self, seconds: float) -> None:
        self._images.inc()
        self._decode.observe(seconds)

    def tokenized(self, seconds: float) -> None:
        self._texts.inc()
        self._tokenize.observe(seconds)

    def met_unknown_script(self) -> None:
        self._unknown_script.inc()

    def waited(self, seconds: float) -> None:
        self._queue.observe(seconds)

    def computed(self, seconds: float, size: int) -> None:
        self._inference.observe(seconds)
        self._batch_size.observe(size)

    def embedded(self, model: str, size: int, seconds: float) -> None:
        self._embedded.labels(model).inc(size)
        self._computing.labels(model).inc(seconds)

    def looked_up(self, outcome: str) -> None:
        self._looked_up.labels(outcome).inc()

    def evicted(self, count: int) -> None:
        self._evicted.inc(count)

    def loaded(self, model: str, *, done: bool) -> None:
        self._loads.labels(model, "loaded" if done else "failed").inc()

    def failed(self, code: str) -> None:
        self._failures.labels(code).inc()

    def abandoned(self, stage: str) -> None:
        self._cancelled.labels(stage).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One request of `route` (its template) was answered after `seconds`."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._request.observe(seconds)

    def refused(self, code: str) -> None:
        """One error of `code` was answered."""
        self._errors.labels(code).inc()
        if code in _REJECTED:
            self._rejected.labels(_REJECTED[code]).inc()

    @contextmanager
    def streaming(self) -> Iterator[list[str]]:
        """Counts a stream while it lasts, and then by the outcome that was put into the list: abandoned for none."""
        outcome: list[str] = []
        with self._streaming.track_inprogress():
            try:
                yield outcome
            finally:
                self._streams.labels(*(outcome or ["abandoned"])).inc()

    def watch(self, gauges: Gauges, models: Models) -> None:
        """Adds gauges (name: help and what reads it) and what each model is, read whenever /metrics is asked."""
        self._registry.register(_Now(gauges, models))

    def render(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self._registry)

    async def measure_lag(self) -> None:
        """Measures how late the event loop wakes up, until cancelled."""
        loop, late = asyncio.get_running_loop(), deque[float](maxlen=round(_LAG_OVER / _LAG_EVERY))
        while True:
            due = loop.time() + _LAG_EVERY
            await asyncio.sleep(_LAG_EVERY)
            late.append(max(0.0, loop.time() - due))
            self._lag.set(max(late))


class _Now(Collector):
    def __init__(self, gauges: Gauges, models: Models) -> None:
        self._gauges, self._models = gauges, models

    def collect(self) -> Iterator[Metric]:
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        models = self._models()
        info = InfoMetricFamily("clipsrv_model", "The models loaded, and the default one in any case")
        loaded = GaugeMetricFamily("clipsrv_model_loaded", "1 if the model is loaded", labels=["model"])
        for number, (name, facts) in enumerate(models.items()):
            loaded.add_metric([name], bool(facts))
            if facts or not number:
                info.add_metric([], {"model": name, **facts})
        yield from (info, loaded)
