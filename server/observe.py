"""One record a request: its times and counts become one log line and the metrics.

It knows nothing of HTTP or engines; routes tell it what happens, the middleware writes it.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from server.metrics import Metrics, ModelMetrics

logger = logging.getLogger(__name__)

# Asked every few seconds by machines; while all is well their lines would bury the others.
_PROBES = frozenset({"/health", "/ready", "/metrics"})


class RequestRecord:
    """What happened to one request so far; the event loop alone changes it.

    It is written once: when the status is known (`responded`) and the work is over (`finished`),
    in whichever order the two come.
    """

    def __init__(self, request_id: str, method: str, path: str, metrics: Metrics) -> None:
        self.request_id = request_id
        self.method = method
        self.path = path
        self.route = ""  # the template, for example /v1/models/{model_id}
        self.status: int | None = None
        self.num_prompt_tokens: int | None = None
        self.num_cached_tokens = 0
        self.num_output_tokens = 0
        self.num_asked_images: int | None = None
        self.num_images = 0
        self.num_steps = 0
        self.finish_reason: str | None = None
        self.time_to_first_token_s: float | None = None
        self.duration_s: float | None = None
        self._metrics = metrics
        self._model_id: str | None = None
        self._model: ModelMetrics | None = None
        self._is_scheduled = False
        self._is_finished = False
        self._is_written = False
        self._start = time.perf_counter()
        self._last_token = self._start
        self._last_step: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self._start

    @property
    def model_id(self) -> str | None:
        """`ServedModel.id` of the model that answers; set by the route that found it."""
        return self._model_id

    @model_id.setter
    def model_id(self, model_id: str) -> None:
        self._model_id = model_id
        self._model = self._metrics.of_model(model_id)

    def admitted(self, num_prompt_tokens: int, num_cached_tokens: int = 0) -> None:
        """The engine took the request. Call again when more is known; the last call holds.

        Both counts are sums over all prompts of the request.
        """
        self.num_prompt_tokens = num_prompt_tokens
        self.num_cached_tokens = num_cached_tokens

    def scheduled(self, queue_time_s: float | None = None) -> None:
        """The first sequence got a slot, now or `queue_time_s` seconds after the arrival."""
        if self._model is None or self._is_scheduled:
            return
        self._is_scheduled = True
        waited = time.perf_counter() - self._start if queue_time_s is None else queue_time_s
        self._model.request_queue_time.observe(waited)

    def tokens(self, count: int) -> None:
        """`count` tokens arrived; call once a step, with the tokens of all choices together."""
        if count <= 0:
            return
        now = time.perf_counter()
        if self.num_output_tokens == 0:
            self.time_to_first_token_s = now - self._start
            if self._model is not None:
                self._model.time_to_first_token.observe(self.time_to_first_token_s)
        elif self._model is not None:
            self._model.inter_token_latency.observe(now - self._last_token)
        self.num_output_tokens += count
        self._last_token = now

    def admitted_images(self, num_prompt_tokens: int, num_images: int) -> None:
        """The image engine took the request."""
        self.num_prompt_tokens = num_prompt_tokens
        self.num_asked_images = num_images

    def step(self, image: int, step: int, num_steps: int) -> None:
        """A denoising step of one of the pictures was taken, the `step`th of `num_steps`."""
        logger.debug("%s: picture %d, step %d of %d", self.request_id, image, step, num_steps)
        self.num_steps += 1
        if image:
            return  # the pictures of a request mostly step together: one tells for all
        now = time.perf_counter()
        if self._last_step is not None and self._model is not None:
            self._model.denoising_step.observe(now - self._last_step)
        self._last_step = now

    def picture(self) -> None:
        """A picture was finished and encoded."""
        self.num_images += 1

    def finished(self, finish_reason: str | None = None) -> None:
        """No more tokens will come; later calls change nothing.

        Args:
            finish_reason: `stop`, `length`, `abort` or `error`; None if no model was asked. With
                several choices, that of the first.
        """
        if self._is_finished:
            return
        self._is_finished = True
        self.finish_reason = finish_reason
        self._write_if_over()

    def responded(self, status: int, route: str) -> None:
        """The status line is settled; a stream's events may still follow."""
        self.status = status
        self.route = route
        self._write_if_over()

    def fields(self) -> dict[str, Any]:
        """What the log line says; times in milliseconds."""
        fields: dict[str, Any] = {
            "id": self.request_id,
            "method": self.method,
            "route": self.route or self.path,
            "status": self.status,
        }
        if self._model_id is not None:
            fields["model"] = self._model_id
        if self.num_prompt_tokens is not None:
            fields["prompt_tokens"] = self.num_prompt_tokens
        if self.num_asked_images is not None:
            fields["images"] = self.num_images
            fields["steps"] = self.num_steps
        elif self.num_prompt_tokens is not None:
            fields["cached_tokens"] = self.num_cached_tokens
            fields["output_tokens"] = self.num_output_tokens
        if self.time_to_first_token_s is not None:
            fields["ttft_ms"] = round(self.time_to_first_token_s * 1e3, 1)
        if self.duration_s is not None:
            fields["duration_ms"] = round(self.duration_s * 1e3, 1)
        if self.finish_reason is not None:
            fields["finish_reason"] = self.finish_reason
        return fields

    def _write_if_over(self) -> None:
        if self._is_written or not self._is_finished or self.status is None:
            return
        self._is_written = True
        self.duration_s = time.perf_counter() - self._start
        self._metrics.count_http(self.method, self.route or "(none)", self.status)
        if self._model is not None and self._model_id is not None and self.finish_reason:
            self._metrics.count_success(self._model_id, self.finish_reason)
            self._model.e2e_request_latency.observe(self.duration_s)
        is_probe = self.route in _PROBES and self.status < 400
        level = logging.DEBUG if is_probe else logging.INFO
        if logger.isEnabledFor(level):
            fields = self.fields()
            line = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
            logger.log(level, "%s", line, extra={"fields": fields})


def _quoted(value: Any) -> str:
    """A path or a name comes from the client: it must not be able to fake a second line."""
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else json.dumps(text)
