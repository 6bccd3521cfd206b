"""A query and a document as the prompt of a reranker."""

from __future__ import annotations

from engines.pooling.spec import RerankSpec
from server.text.tokenizer import Tokenizer


class PairPrompts:
    """The prompts of one engine; special tokens in a client's texts are plain text."""

    def __init__(self, tokenizer: Tokenizer, spec: RerankSpec) -> None:
        self._tokenizer = tokenizer
        self._spec = spec
        self._prefix = tokenizer.encode(spec.prefix)
        self._suffix = tokenizer.encode(spec.suffix)

    def encode(self, query: str, document: str, instruction: str | None = None) -> list[int]:
        """The ids of one prompt; without an instruction the engine's own."""
        body = self._spec.body.format(
            instruction=self._spec.instruction if instruction is None else instruction,
            query=query,
            document=document,
        )
        return [*self._prefix, *self._tokenizer.encode_plain(body), *self._suffix]
