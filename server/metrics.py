"""What Prometheus reads: gauges and counters from the engines, histograms from the requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.registry import ChatModel, ImageModel, ModelRegistry, PoolingModel

PREFIX = "enginery_"
_LABEL = ["model_name"]
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
_INTER_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 10.0),
)
_LAG_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.2, 0.5, 1.0, 5.0),
)
_STEP_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0),
    *(32.0, 48.0, 64.0),
)
_REQUEST_BUCKETS = (
    *(0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0),
    *(50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0),
)


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The histograms of one model, in seconds."""

    time_to_first_token: Histogram
    inter_token_latency: Histogram
    e2e_request_latency: Histogram
    request_queue_time: Histogram
    denoising_step: Histogram


class Metrics:
    """One app's metrics in a registry of their own, so that several apps can share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._request_success = Counter(
            f"{PREFIX}request_success",
            "Requests that an engine finished, by finish reason.",
            [*_LABEL, "finish_reason"],
            registry=self.registry,
        )
        self._http_requests = Counter(
            f"{PREFIX}http_requests",
            "HTTP requests that were answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._time_to_first_token = self._histogram(
            "time_to_first_token",
            "From a request's arrival to its first token.",
            _FIRST_TOKEN_BUCKETS,
        )
        self._inter_token_latency = self._histogram(
            "inter_token_latency", "Between two tokens of a request.", _INTER_TOKEN_BUCKETS
        )
        self._e2e_request_latency = self._histogram(
            "e2e_request_latency", "From a request's arrival to its end.", _REQUEST_BUCKETS
        )
        self._request_queue_time = self._histogram(
            "request_queue_time",
            "Between a request's arrival and its first step.",
            _REQUEST_BUCKETS,
        )
        self._denoising_step = self._histogram(
            "denoising_step", "Between two denoising steps of a picture.", _STEP_BUCKETS
        )
        self.event_loop_lag = Histogram(
            f"{PREFIX}event_loop_lag_seconds",
            "How late the event loop woke from a sleep of 0.1 s: what every event has to wait.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self._models: dict[str, ModelMetrics] = {}

    def of_model(self, model_id: str) -> ModelMetrics:
        """The histograms of a model; `model_id` is a served id, never what a client made up."""
        metrics = self._models.get(model_id)
        if metrics is None:
            metrics = self._models[model_id] = ModelMetrics(
                time_to_first_token=self._time_to_first_token.labels(model_id),
                inter_token_latency=self._inter_token_latency.labels(model_id),
                e2e_request_latency=self._e2e_request_latency.labels(model_id),
                request_queue_time=self._request_queue_time.labels(model_id),
                denoising_step=self._denoising_step.labels(model_id),
            )
        return metrics

    def count_success(self, model_id: str, finish_reason: str) -> None:
        self._request_success.labels(model_id, finish_reason).inc()

    def count_http(self, method: str, route: str, status: int) -> None:
        self._http_requests.labels(method, route, str(status)).inc()

    def watch(self, models: ModelRegistry) -> None:
        """Show the engines' own counters and gauges, read when Prometheus asks."""
        self.registry.register(EngineCollector(models))
        for model in models.models:
            self.of_model(model.id)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition that suits an Accept header, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"{PREFIX}{name}_seconds", what, _LABEL, buckets=buckets, registry=self.registry
        )


class EngineCollector(Collector):
    """Reads each worker once a scrape; nothing is counted twice."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        running = _gauge("num_requests_running", "Sequences and pictures that have a place.")
        waiting = _gauge("num_requests_waiting", "Sequences and pictures that wait for a place.")
        for model in self._models.models:
            running.add_metric([model.id], model.worker.num_running)
            waiting.add_metric([model.id], model.worker.num_waiting)
        yield from (running, waiting)
        yield from _chat_metrics(self._models.of_type(ChatModel))
        yield from _image_metrics(self._models.of_type(ImageModel))
        yield from _pooling_metrics(self._models.of_type(PoolingModel))


def _chat_metrics(models: Iterable[ChatModel]) -> Iterator[Metric]:
    usage = _gauge("kv_cache_usage_perc", "Part of the KV cache in use, from 0 to 1.")
    queries = _counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
    hits = _counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
    prompt = _counter("prompt_tokens", "Prompt tokens taken in.")
    generated = _counter("generation_tokens", "Tokens generated.")
    drafted = _counter("draft_tokens", "Tokens guessed ahead and verified.")
    accepted = _counter("accepted_draft_tokens", "Guessed tokens that were right.")
    for model in models:
        stats = model.worker.stats()
        label = [model.id]
        usage.add_metric(label, stats.kv_cache_bytes / max(stats.kv_cache_limit_bytes, 1))
        queries.add_metric(label, stats.prefix_cache_queries)
        hits.add_metric(label, stats.prefix_cache_hits)
        prompt.add_metric(label, stats.prompt_tokens)
        generated.add_metric(label, stats.generation_tokens)
        drafted.add_metric(label, stats.draft_tokens)
        accepted.add_metric(label, stats.accepted_draft_tokens)
    yield from (usage, queries, hits, prompt, generated, drafted, accepted)


def _image_metrics(models: Iterable[ImageModel]) -> Iterator[Metric]:
    steps = _counter("denoising_steps", "Runs of the denoiser, each for a batch of pictures.")
    rows = _counter("denoising_rows", "Rows of these runs; a guided picture has two.")
    images = _counter("images", "Pictures finished.")
    decoding = _gauge("num_images_decoding", "Pictures and previews that wait for the decoder.")
    left = _gauge("denoising_steps_left", "Steps that the pictures being drawn still need.")
    for model in models:
        stats = model.worker.stats()
        label = [model.id]
        steps.add_metric(label, stats.num_steps)
        rows.add_metric(label, stats.num_rows)
        images.add_metric(label, stats.num_images)
        decoding.add_metric(label, stats.num_decoding)
        left.add_metric(label, model.worker.num_steps_left)
    yield from (steps, rows, images, decoding, left)


def _pooling_metrics(models: Iterable[PoolingModel]) -> Iterator[Metric]:
    steps = _counter("pooling_steps", "Runs of models that embed or rank, each of some texts.")
    tokens = _counter("pooling_tokens", "Tokens that these have read.")
    for model in models:
        stats = model.worker.stats()
        steps.add_metric([model.id], stats.num_steps)
        tokens.add_metric([model.id], stats.prompt_tokens)
    yield from (steps, tokens)


def _gauge(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", what, labels=_LABEL)


def _counter(name: str, what: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}{name}", what, labels=_LABEL)
