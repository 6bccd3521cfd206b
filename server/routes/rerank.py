"""`/v1/rerank` and `/v1/score`: how relevant documents are to a query."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from falcon.asgi import Request, Response

from server.pooling import Reading, check_length
from server.registry import ModelRegistry, RerankModel
from server.routes.answering import collect, encode, off_loop
from server.schema.decode import decode
from server.schema.embeddings import EmbeddingUsage
from server.schema.rerank import (
    RerankAnswer,
    RerankDocument,
    RerankRequest,
    RerankResult,
    Score,
    ScoreList,
    ScoreRequest,
)
from server.schema.unsupported import RERANK, check_fields


class Rerank:
    """Documents ordered by their relevance to a query."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(body, RerankRequest)
        model = self._models.find(request.model, RerankModel)
        check_fields(body, RERANK)
        pairs = [(request.query, text) for text in request.texts]
        names = [f"documents[{index}]" for index in range(len(pairs))]
        reading = await _read(req, model, pairs, names, request.instruction)
        scores = [float(row[0]) for row in reading.rows]
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        has_documents = request.return_documents is not False
        results = [
            RerankResult(
                index=index,
                document=RerankDocument(text=pairs[index][1]) if has_documents else None,
                relevance_score=scores[index],
            )
            for index in order[: request.top_n or None]
        ]
        resp.data = encode(
            RerankAnswer(
                id=f"rerank-{uuid.uuid4().hex}",
                model=request.model,
                usage=_usage(reading),
                results=results,
            )
        )


class Scores:
    """The relevance of pairs of texts."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(body, ScoreRequest)
        model = self._models.find(request.model, RerankModel)
        check_fields(body, RERANK)
        pairs = request.pairs()
        names = [f"text_2[{index}]" for index in range(len(pairs))]
        reading = await _read(req, model, pairs, names, request.instruction)
        resp.data = encode(
            ScoreList(
                id=f"score-{uuid.uuid4().hex}",
                created=int(time.time()),
                model=request.model,
                data=[
                    Score(index=index, score=float(row[0]))
                    for index, row in enumerate(reading.rows)
                ],
                usage=_usage(reading),
            )
        )


async def _read(
    req: Request,
    model: RerankModel,
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    instruction: str | None,
) -> Reading:
    """Let the model read every pair; `names` are what errors call them."""
    req.context.record.model_id = model.id

    def encode_pairs() -> list[list[int]]:
        return [model.prompts.encode(query, text, instruction) for query, text in pairs]

    prompts = await off_loop(req, encode_pairs)
    for name, prompt in zip(names, prompts, strict=True):
        check_length(model.worker.max_context, len(prompt), name)
    reading = Reading(model, prompts, req.context.record)
    await collect(req, reading)
    return reading


def _usage(reading: Reading) -> EmbeddingUsage:
    return EmbeddingUsage(prompt_tokens=reading.num_tokens, total_tokens=reading.num_tokens)
