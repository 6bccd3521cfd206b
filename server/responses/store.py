"""Responses that later requests may go on from, in memory and bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from server.errors import ApiError
from server.schema.response_answer import ResponseObject
from server.schema.response_items import ConversationItem

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response with all that was said before it.

    Attributes:
        response: As it was answered.
        input: What went in, that of earlier responses included.
        output: What came out, as items that can go in.
    """

    response: ResponseObject
    input: tuple[ConversationItem, ...]
    output: tuple[ConversationItem, ...]

    @property
    def conversation(self) -> tuple[ConversationItem, ...]:
        return self.input + self.output


class ResponseStore:
    """Keeps the responses that were used last; the event loop alone uses it.

    A response keeps the whole conversation that led to it, so deleting an earlier one, or dropping
    it for room, breaks no chain. Items are shared between responses, but counted for each.

    Args:
        max_responses: Kept at most; 0 keeps none.
        max_bytes: Of their JSON.
    """

    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def is_off(self) -> bool:
        return self._max_responses == 0

    def put(self, stored: StoredResponse) -> None:
        """Keep a response; those that were used longest ago go where room is needed."""
        size = len(_encode(stored.response)) + _size(stored.conversation)
        if self.is_off or size > self._max_bytes:
            return
        response_id = stored.response.id
        self._stored[response_id] = stored
        self._sizes[response_id] = size
        self.num_bytes += size
        while len(self._stored) > self._max_responses or self.num_bytes > self._max_bytes:
            self._drop(next(iter(self._stored)))

    def get(self, response_id: str, param: str = "response_id") -> StoredResponse:
        """A response that is kept.

        Raises:
            ApiError: 404, it is not, or not any more.
        """
        stored = self._stored.get(response_id)
        if stored is None:
            raise _not_found(response_id, param)
        self._stored.move_to_end(response_id)
        return stored

    def delete(self, response_id: str) -> None:
        """Forget a response.

        Raises:
            ApiError: 404, it is not kept.
        """
        if response_id not in self._stored:
            raise _not_found(response_id, "response_id")
        self._drop(response_id)

    def item(self, item_id: str) -> ConversationItem | None:
        """An item of any response that is kept; those used last are looked through first."""
        for stored in reversed(self._stored.values()):
            for item in stored.conversation:
                if item.id == item_id:
                    return item
        return None

    def _drop(self, response_id: str) -> None:
        del self._stored[response_id]
        self.num_bytes -= self._sizes.pop(response_id)


def _size(items: Sequence[ConversationItem]) -> int:
    return sum(len(_encode(item)) for item in items)


def _not_found(response_id: str, param: str) -> ApiError:
    code = "previous_response_not_found" if param == "previous_response_id" else "not_found"
    return ApiError(
        404,
        f"The response {response_id!r} is not stored: it was never, was deleted, or gave way to "
        "newer ones.",
        param=param,
        code=code,
    )
