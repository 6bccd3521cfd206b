"""`/v1/embeddings`: the request, and the answer in either encoding."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.described import Prompts, TokenIds

MAX_INPUTS = 2048  # OpenAI's
MAX_TOTAL_TOKENS = 300_000  # of a request; OpenAI's


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """What a client sends; all fields are OpenAI's."""

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None

    def texts(self, num_tokens: int) -> list[str | TokenIds]:
        """One or more texts, each as text or as token ids.

        Args:
            num_tokens: Ids that the model knows.

        Raises:
            InvalidRequest: There is none, there are too many, they are mixed, one is empty, or ids
                are out of range.
        """
        texts = self._texts()
        if not texts:
            raise InvalidRequest("input is an empty list, but it must hold a text", "input")
        if len(texts) > MAX_INPUTS:
            raise InvalidRequest(
                f"input has {len(texts)} texts, but a request may have at most {MAX_INPUTS}",
                "input",
            )
        for index, text in enumerate(texts):
            param = "input" if len(texts) == 1 else f"input[{index}]"
            if not text:
                raise InvalidRequest(
                    f"{param} is empty, but a model needs at least one token", param
                )
            wrong = [id for id in text if isinstance(id, int) and not 0 <= id < num_tokens]
            if wrong:
                raise InvalidRequest(
                    f"{param} has the token id {wrong[0]}, but ids run from 0 to {num_tokens - 1}",
                    param,
                )
        return texts

    def _texts(self) -> list[str | TokenIds]:
        if isinstance(self.input, str):
            return [self.input]
        token_ids = [item for item in self.input if isinstance(item, int)]
        if not token_ids:
            return [item for item in self.input if not isinstance(item, int)]
        if len(token_ids) < len(self.input):
            raise InvalidRequest(
                "input mixes token ids with other texts, but it must be a text, a list of texts, "
                "a list of token ids or a list of such lists",
                "input",
            )
        return [token_ids]


class Embedding(msgspec.Struct, kw_only=True):
    """One text's embedding; base64 is of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, kw_only=True):
    """Tokens of all texts, those included that the tokenizer adds."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    """The answer, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
