"""`/v1/chat/completions`: a conversation in, the assistant's next message out."""

from __future__ import annotations

from typing import Any

import msgspec
from falcon.asgi import Request, Response

from server.chat_task import ChatTask
from server.registry import ChatModel, ModelRegistry
from server.routes.answering import AnswerIdentity, off_loop, respond
from server.routes.chat_writer import ChatWriter
from server.routes.conversing import begin_answers
from server.schema.chat import ChatCompletionRequest
from server.schema.chat_body import prepare
from server.schema.decode import decode


class ChatCompletions:
    """Chat completions, whole or streamed as server-sent events."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(prepare(body), ChatCompletionRequest)
        model = self._models.find(request.model, ChatModel)
        req.context.record.model_id = model.id
        request.check()
        task = await off_loop(req, _task, request, body)
        generation, output = await begin_answers(req, model, task)
        writer = ChatWriter(
            AnswerIdentity.new("chatcmpl", request.model, model),
            model.text.tokenizer,
            output.new_parser,
            has_logprobs=bool(request.logprobs),
            includes_usage=request.includes_usage,
            is_legacy=request.is_legacy,
        )
        await respond(req, resp, generation, writer, streamed=bool(request.stream))


def _task(request: ChatCompletionRequest, body: dict[str, Any]) -> ChatTask:
    continues = bool(request.continue_final_message)
    opens_turn = request.add_generation_prompt
    return ChatTask(
        messages=msgspec.to_builtins(request.messages),
        sampling=request,
        answer_limit=request.answer_limit,
        total_limit=request.max_length,
        num_logprobs=request.num_logprobs,
        tools=_tools(request, body) if request.offers_tools else None,
        functions=request.offered_functions(),
        must_call=request.must_call,
        is_parallel=request.allows_parallel_calls,
        grammar=request.grammar(),
        thinking_budget=request.thinking_budget,
        variables=request.template_variables(),
        opens_turn=not continues if opens_turn is None else opens_turn,
        continues=continues,
        functions_field=request.functions_field,
    )


def _tools(request: ChatCompletionRequest, body: dict[str, Any]) -> list[dict[str, Any]]:
    """As the client wrote them, the order of their fields too."""
    if request.is_legacy:
        return [{"type": "function", "function": function} for function in body["functions"]]
    tools: list[dict[str, Any]] = body["tools"]
    return tools
