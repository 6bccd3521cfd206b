"""`/v1/embeddings`: texts in, as text or token ids, and a row of numbers for each out."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
from falcon.asgi import Request, Response
from numpy.typing import NDArray

from engines.errors import InvalidRequest
from server.pooling import Reading, check_length
from server.registry import EmbeddingModel, ModelRegistry
from server.routes.answering import collect, encode, off_loop
from server.schema.decode import decode
from server.schema.embeddings import (
    MAX_TOTAL_TOKENS,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
)
from server.schema.unsupported import EMBEDDINGS, check_fields

_MANY_NUMBERS = 1 << 16  # of an answer; more are encoded off the event loop


class Embeddings:
    """Embeddings of one or many texts."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(body, EmbeddingRequest)
        model = self._models.find(request.model, EmbeddingModel)
        req.context.record.model_id = model.id
        check_fields(body, EMBEDDINGS)
        if request.dimensions is not None and request.dimensions > model.width:
            raise InvalidRequest(
                f"dimensions is {request.dimensions}, but this model's embeddings have "
                f"{model.width}",
                "dimensions",
            )
        texts = await off_loop(req, _encode_texts, model, request)
        reading = Reading(model, texts, req.context.record, request.dimensions)
        await collect(req, reading)
        if len(reading.rows) * reading.rows[0].size > _MANY_NUMBERS:
            resp.data = await asyncio.to_thread(_answer, request, reading)
        else:
            resp.data = _answer(request, reading)


def _encode_texts(model: EmbeddingModel, request: EmbeddingRequest) -> list[list[int]]:
    texts = [
        model.tokenizer.encode_prompt(text) if isinstance(text, str) else text
        for text in request.texts(model.worker.num_tokens)
    ]
    for index, ids in enumerate(texts):
        param = "input" if len(texts) == 1 else f"input[{index}]"
        check_length(model.worker.max_context, len(ids), param)
    num_tokens = sum(map(len, texts))
    if num_tokens > MAX_TOTAL_TOKENS:
        raise InvalidRequest(
            f"input has {num_tokens} tokens, but a request may have at most {MAX_TOTAL_TOKENS}",
            "input",
        )
    return texts


def _answer(request: EmbeddingRequest, reading: Reading) -> bytes:
    is_base64 = request.encoding_format == "base64"
    return encode(
        EmbeddingList(
            data=[
                Embedding(index=index, embedding=_base64(row) if is_base64 else row.tolist())
                for index, row in enumerate(reading.rows)
            ],
            model=request.model,
            usage=EmbeddingUsage(prompt_tokens=reading.num_tokens, total_tokens=reading.num_tokens),
        )
    )


def _base64(row: NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
