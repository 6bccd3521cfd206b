"""Leaves the oldest turns out of a conversation that is longer than a model's window.

The first Qwen's own `chat` does so with the `max_window_size` of its generation config.
"""

from __future__ import annotations

from collections.abc import Callable

from server.text.messages import Message


def fit_window(
    messages: list[Message], max_tokens: int, encode: Callable[[list[Message]], list[int]]
) -> list[int]:
    """The prompt of as many of the last turns as the window holds.

    A turn begins with a user's message. System messages at the beginning and the last turn always
    stay, so a prompt may still be longer than the window.

    Args:
        messages: A conversation.
        max_tokens: The window.
        encode: Gives the prompt of some messages.
    """
    token_ids = encode(messages)
    if len(token_ids) <= max_tokens:
        return token_ids
    start = _num_leading_system(messages)
    turns = [i for i, m in enumerate(messages) if m["role"] == "user" and i > start]
    if not turns:
        return token_ids
    # Leaving out more makes a prompt no longer, so the fewest turns to leave out are found in
    # a few steps, however many there are.
    low, high = 0, len(turns) - 1
    while low < high:
        middle = (low + high) // 2
        if len(encode(messages[:start] + messages[turns[middle] :])) <= max_tokens:
            high = middle
        else:
            low = middle + 1
    return encode(messages[:start] + messages[turns[low] :])


def _num_leading_system(messages: list[Message]) -> int:
    return next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
