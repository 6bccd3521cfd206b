"""Every failure as one OpenAI error object: what engines, msgspec and Falcon raise is mapped here.

An `ApiError` is the answer itself, so it is also what a stream sends when it breaks off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import falcon
import msgspec

from engines.errors import (
    ContextLengthExceeded,
    EngineryError,
    InvalidRequest,
    QueueFull,
    RequestError,
)

RETRY_AFTER_S = "1"
RETRY_HEADERS = {"Retry-After": RETRY_AFTER_S, "Retry-After-Ms": "1000"}
_INTERNAL_MESSAGE = "The server failed to answer this request; the request id is in its log."
_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
}


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong; `param` names the field to blame, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success."""

    error: ErrorObject


class ApiError(Exception):
    """An error as the client sees it.

    Args:
        status: HTTP status code.
        message: One sentence that names the field, the value and the limit.
        type: By default what the status stands for, for example `invalid_request_error`.
        param: The field to blame, as the client wrote it: `messages[0].content`.
        code: A word for programs, for example `context_length_exceeded`.
        headers: Sent with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or _type_of(status)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> ErrorResponse:
        """The body; in a stream, the JSON of the last event before `[DONE]`."""
        return ErrorResponse(
            error=ErrorObject(
                message=self.message, type=self.type, param=self.param, code=self.code
            )
        )


class ModelNotFound(ApiError):
    """No engine answers to the name that the client sent."""

    def __init__(self, message: str) -> None:
        super().__init__(404, message, param="model", code="model_not_found")


class ServerUnavailable(ApiError):
    """The server is draining, or the engine behind a model has stopped."""

    def __init__(self, message: str, code: str = "service_unavailable") -> None:
        super().__init__(503, message, code=code, headers=RETRY_HEADERS)


def to_api_error(error: BaseException) -> ApiError:
    """The answer to any exception; what is not the client's doing tells nothing of the inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, msgspec.MsgspecError):
        return _from_msgspec(error)
    if isinstance(error, RequestError):
        return _from_request_error(error)
    if isinstance(error, falcon.HTTPError):
        return _from_falcon(error)
    return ApiError(500, _INTERNAL_MESSAGE, code="internal_error")


def is_unexpected(error: BaseException) -> bool:
    """Whether the traceback belongs into the log: it is a defect or a failed runtime."""
    if isinstance(error, EngineryError):
        return not isinstance(error, RequestError)
    return not isinstance(error, ApiError | msgspec.MsgspecError | falcon.HTTPError)


def _type_of(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _from_request_error(error: RequestError) -> ApiError:
    message = str(error)
    if isinstance(error, ContextLengthExceeded):
        return ApiError(400, message, param=error.param, code="context_length_exceeded")
    if isinstance(error, QueueFull):
        return ApiError(429, message, code="rate_limit_exceeded", headers=RETRY_HEADERS)
    code = "invalid_value" if isinstance(error, InvalidRequest) else None
    return ApiError(400, message, param=error.param, code=code)


def _from_msgspec(error: msgspec.MsgspecError) -> ApiError:
    """msgspec writes "Expected `str`, got `int` - at `$.messages[0].content`"."""
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, f"The body is not valid JSON: {error}", code="invalid_json")
    problem, _, path = str(error).partition(" - at `")
    # msgspec writes [...] for the keys of a mapping and does not say which.
    param = path.removesuffix("`").removeprefix("$").removeprefix(".").replace("[...]", "")
    field = re.search(r"(?:required|unknown) field `([^`]+)`", problem)
    if field:
        param = f"{param}.{field[1]}" if param else field[1]
    message = f"{param}: {problem}" if param and not field else problem
    return ApiError(400, message, param=param or None, code="invalid_value")


def _from_falcon(error: falcon.HTTPError) -> ApiError:
    status = falcon.http_status_to_code(error.status)
    headers = dict(error.headers or {})
    if isinstance(error, falcon.HTTPRouteNotFound):
        message = "There is no such route; GET /openapi.json lists those that there are."
    elif isinstance(error, falcon.HTTPMethodNotAllowed):
        message = f"This route does not take that method, but {headers.get('Allow')}."
    elif isinstance(error, falcon.HTTPUnsupportedMediaType):
        message = "The body is of a type that is not supported; send application/json."
    else:
        message = error.description or f"{error.title}."
    return ApiError(status, message, code=_CODES.get(status), headers=headers)
