"""`/v1/messages`: chat in Anthropic's shape, and how many tokens a prompt would have."""

from __future__ import annotations

import uuid

from falcon.asgi import Request, Response

from server.anthropic.blocks import ContentBlocks
from server.anthropic.conversation import to_task
from server.registry import ChatModel, ModelRegistry
from server.routes.answering import off_loop, respond
from server.routes.conversing import begin_answers, encode_task
from server.routes.message_writer import MessageWriter
from server.schema.anthropic import CountTokensRequest, MessageRequest
from server.schema.anthropic_answer import AnthropicMessage, MessageUsage, TokenCount
from server.schema.anthropic_body import check_body
from server.schema.decode import decode


class Messages:
    """Messages, whole or streamed as server-sent events."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        check_body(body)
        request = decode(body, MessageRequest)
        model = self._models.find(request.model, ChatModel)
        req.context.record.model_id = model.id
        request.check()
        task = await off_loop(req, to_task, request)
        generation, output = await begin_answers(req, model, task)
        message = AnthropicMessage(
            id=f"msg_{uuid.uuid4().hex}",
            model=request.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=MessageUsage.of(generation.usage),
        )
        blocks = ContentBlocks(output.new_parser())
        writer = MessageWriter(message, blocks, generation, request.max_tokens)
        await respond(req, resp, generation, writer, streamed=bool(request.stream))

    async def on_post_count(self, req: Request, resp: Response) -> None:
        """Count the tokens of a prompt without answering it."""
        body = await req.get_media()
        check_body(body)
        request = decode(body, CountTokensRequest)
        model = self._models.find(request.model, ChatModel)
        req.context.record.model_id = model.id
        task = await off_loop(req, to_task, request)
        resp.media = TokenCount(input_tokens=len(await off_loop(req, encode_task, model, task)))
