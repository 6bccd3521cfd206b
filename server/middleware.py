"""What every request gets: an id, a record of its times, and one line in the log.

And what every answer says in its headers: the id, how long it took, how full the queue is.
"""

from __future__ import annotations

import re
import uuid

from falcon.asgi import Request, Response

from server.anthropic.errors import ROUTES
from server.errors import RETRY_AFTER_S
from server.metrics import Metrics
from server.observe import RequestRecord
from server.registry import ModelRegistry, ServedModel

_SANE_ID = re.compile(r"[A-Za-z0-9_.:/+=-]{1,128}")


class RequestRecords:
    """A Falcon middleware that makes `req.context.record` and sends `X-Request-Id`.

    It is the first one, so that answers of the others are recorded too.
    """

    def __init__(self, metrics: Metrics, models: ModelRegistry) -> None:
        self._metrics = metrics
        self._models = models

    async def process_request(self, req: Request, resp: Response) -> None:
        given = req.get_header("X-Request-Id")
        # A client's id goes into the log as it is, so it must not be able to hold a line break.
        is_sane = given is not None and _SANE_ID.fullmatch(given)
        request_id = given if given is not None and is_sane else f"req-{uuid.uuid4().hex}"
        req.context.record = RequestRecord(request_id, req.method, req.path, self._metrics)
        resp.set_header("X-Request-Id", request_id)
        if req.path.startswith(ROUTES):
            resp.set_header("Request-Id", request_id)  # where Anthropic's clients look for it

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        """Note the status; a stream goes on, so its route says when it has finished."""
        record: RequestRecord = req.context.record
        resp.set_header("OpenAI-Processing-Ms", str(round(record.elapsed_s * 1e3)))
        if record.model_id is not None:
            resp.set_headers(_queue_headers(self._models.get(record.model_id)))
        record.responded(resp.status_code, req.uri_template or "")
        if not resp.sse and not resp.stream:
            record.finished()


def _queue_headers(model: ServedModel) -> dict[str, str]:
    """What clients know as rate limits: here the places in the queue, one for each answer."""
    worker = model.worker
    num_jobs = worker.num_running + worker.num_waiting
    return {
        "X-RateLimit-Limit-Requests": str(worker.max_num_jobs),
        "X-RateLimit-Remaining-Requests": str(max(0, worker.max_num_jobs - num_jobs)),
        "X-RateLimit-Reset-Requests": f"{RETRY_AFTER_S}s" if worker.num_waiting else "0s",
    }
