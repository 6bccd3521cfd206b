"""`/v1/chat/completions`: a conversation in, the assistant's next message out."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from falcon.asgi import Request, Response

from server.generation import Generation, GenerationOptions, token_limit
from server.output_format import OutputFormat, output_format
from server.registry import ChatModel, ModelRegistry
from server.routes.answering import AnswerIdentity, off_loop, respond
from server.routes.chat_writer import ChatWriter
from server.schema.chat import ChatCompletionRequest
from server.schema.decode import decode
from server.schema.unsupported import CHAT, check_supported


class ChatCompletions:
    """Chat completions, whole or streamed as server-sent events."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(body, ChatCompletionRequest)
        model = self._models.find(request.model, ChatModel)
        req.context.record.model_id = model.id
        request.check()
        check_supported(body, CHAT)
        prompt = await off_loop(req, _encode, model, request, body)
        # Compiling a grammar takes milliseconds, or as much as a second.
        output = await asyncio.to_thread(output_format, model, request, prompt)
        generation = Generation(
            model, [prompt], _options(model, request, prompt, output), req.context.record
        )
        writer = ChatWriter(
            AnswerIdentity.new("chatcmpl", request.model, model),
            model.text.tokenizer,
            output.new_parser,
            has_logprobs=bool(request.logprobs),
            includes_usage=request.includes_usage,
            is_legacy=request.is_legacy,
        )
        await respond(req, resp, generation, writer, streamed=bool(request.stream))


def _encode(model: ChatModel, request: ChatCompletionRequest, body: dict[str, Any]) -> list[int]:
    continues = bool(request.continue_final_message)
    opens_turn = request.add_generation_prompt
    return model.text.encode_chat(
        msgspec.to_builtins(request.messages),
        tools=_tools(request, body) if request.offers_tools else None,
        add_generation_prompt=not continues if opens_turn is None else opens_turn,
        continue_final_message=continues,
        variables=request.template_variables(),
    )


def _tools(request: ChatCompletionRequest, body: dict[str, Any]) -> list[dict[str, Any]]:
    """As the client wrote them, the order of their fields too."""
    if request.is_legacy:
        return [{"type": "function", "function": function} for function in body["functions"]]
    tools: list[dict[str, Any]] = body["tools"]
    return tools


def _options(
    model: ChatModel, request: ChatCompletionRequest, prompt: list[int], output: OutputFormat
) -> GenerationOptions:
    worker = model.worker
    limit = token_limit(worker.max_context, len(prompt), request.answer_limit, "messages")
    return GenerationOptions(
        sampling=request.sampling_params(
            model.text.generation_config,
            max_tokens=limit,
            vocab_size=worker.vocab_size,
            num_logprobs=request.num_logprobs,
        ),
        num_choices=request.num_choices,
        stops=request.stop_strings(),
        skip_special_tokens=request.skip_special_tokens is not False,
        new_constraint=output.new_constraint,
        new_counter=output.new_counter,
    )
