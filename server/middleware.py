"""What every request gets: an id, a record of its times, and one line in the log."""

from __future__ import annotations

import re
import uuid

from falcon.asgi import Request, Response

from server.metrics import Metrics
from server.observe import RequestRecord

_SANE_ID = re.compile(r"[A-Za-z0-9_.:/+=-]{1,128}")


class RequestRecords:
    """A Falcon middleware that makes `req.context.record` and sends `X-Request-Id`.

    It is the first one, so that answers of the others are recorded too.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def process_request(self, req: Request, resp: Response) -> None:
        given = req.get_header("X-Request-Id")
        # A client's id goes into the log as it is, so it must not be able to hold a line break.
        is_sane = given is not None and _SANE_ID.fullmatch(given)
        request_id = given if given is not None and is_sane else f"req-{uuid.uuid4().hex}"
        req.context.record = RequestRecord(request_id, req.method, req.path, self._metrics)
        resp.set_header("X-Request-Id", request_id)

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        """Note the status; a stream goes on, so its route says when it has finished."""
        record: RequestRecord = req.context.record
        record.responded(resp.status_code, req.uri_template or "")
        if not resp.sse and not resp.stream:
            record.finished()
