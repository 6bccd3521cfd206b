"""`/v1/rerank` and `/v1/score`: requests and answers as vLLM, Jina and Cohere have them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from server.schema.embeddings import EmbeddingUsage

MAX_DOCUMENTS = 1024


class RerankDocument(msgspec.Struct, kw_only=True):
    """A document as an object; other fields of it are ignored."""

    text: str


Documents = Annotated[list[str | RerankDocument], Meta(min_length=1, max_length=MAX_DOCUMENTS)]
Texts = Annotated[list[str], Meta(min_length=1, max_length=MAX_DOCUMENTS)]


class RerankRequest(msgspec.Struct, kw_only=True):
    """What a client sends. `instruction` is what relevance means here; the engine has a default."""

    model: str
    query: str
    documents: Documents
    top_n: Annotated[int, Meta(ge=0)] | None = None  # 0 and null are all, as vLLM has it
    return_documents: bool | None = None  # true by default
    instruction: str | None = None
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        return [item if isinstance(item, str) else item.text for item in self.documents]


class RerankResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One document with its place in the request; scores run from 0 to 1."""

    index: int
    document: RerankDocument | None = None
    relevance_score: float


class RerankAnswer(msgspec.Struct, kw_only=True):
    """The most relevant documents, best first; of equal ones the earlier."""

    id: str
    model: str
    usage: EmbeddingUsage
    results: list[RerankResult]


class ScoreRequest(msgspec.Struct, kw_only=True):
    """Pairs of texts: one with each of several, or two lists of one length."""

    model: str
    text_1: str | Texts
    text_2: str | Texts
    instruction: str | None = None
    user: str | None = None

    def pairs(self) -> list[tuple[str, str]]:
        """Each first text with its second.

        Raises:
            InvalidRequest: The lists have different lengths, and neither holds one text.
        """
        first = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        second = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise InvalidRequest(
                f"text_1 has {len(first)} texts and text_2 {len(second)}, but they must have as "
                "many, or text_1 only one",
                "text_2",
            )
        return list(zip(first, second, strict=True))


class Score(msgspec.Struct, kw_only=True):
    """The relevance of one pair, from 0 to 1."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreList(msgspec.Struct, kw_only=True):
    """The answer, in the order of the pairs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: EmbeddingUsage
