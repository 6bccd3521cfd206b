"""Errors in the shape that Anthropic's clients parse."""

from __future__ import annotations

from server.errors import ApiError
from server.schema.anthropic_answer import AnthropicErrorObject, AnthropicErrorResponse

ROUTES = "/v1/messages"  # and below

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: ApiError, request_id: str | None = None) -> AnthropicErrorResponse:
    """The same error; the field to blame is named in the message."""
    kind = "invalid_request_error" if error.status < 500 else "api_error"
    described = AnthropicErrorObject(type=_TYPES.get(error.status, kind), message=error.message)
    return AnthropicErrorResponse(error=described, request_id=request_id)
