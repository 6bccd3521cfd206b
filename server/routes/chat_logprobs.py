"""The tokens of a chat answer with their log-probabilities, as OpenAI lists them."""

from __future__ import annotations

from collections.abc import Sequence

from server.answer import TokenEntry
from server.schema.usage import TokenLogprob, TopLogprob, finite
from server.text.tokenizer import Tokenizer


def chat_logprobs(entries: Sequence[TokenEntry], tokenizer: Tokenizer) -> list[TokenLogprob]:
    """The tokens of an answer as OpenAI lists them."""
    tokens = []
    for entry in entries:
        assert entry.logprobs is not None
        text, text_bytes = tokenizer.token_text(entry.token_id)
        tokens.append(
            TokenLogprob(
                token=text,
                logprob=finite(entry.logprobs.logprob),
                bytes=text_bytes,
                top_logprobs=[
                    _top_logprob(token_id, logprob, tokenizer)
                    for token_id, logprob in entry.logprobs.top
                ],
            )
        )
    return tokens


def _top_logprob(token_id: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    text, text_bytes = tokenizer.token_text(token_id)
    return TopLogprob(token=text, logprob=finite(logprob), bytes=text_bytes)
