"""`/v1/chat/completions`: a conversation in, the assistant's next message out."""

from __future__ import annotations

from typing import Any

import msgspec
from falcon.asgi import Request, Response

from server.generation import Generation, GenerationOptions, token_limit
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
        generation = Generation(
            model, [prompt], _options(model, request, prompt), req.context.record
        )
        writer = ChatWriter(
            AnswerIdentity.new("chatcmpl", request.model, model),
            model.text.tokenizer,
            has_logprobs=bool(request.logprobs),
            includes_usage=request.includes_usage,
        )
        await respond(req, resp, generation, writer, streamed=bool(request.stream))


def _encode(model: ChatModel, request: ChatCompletionRequest, body: dict[str, Any]) -> list[int]:
    continues = bool(request.continue_final_message)
    opens_turn = request.add_generation_prompt
    return model.text.encode_chat(
        msgspec.to_builtins(request.messages),
        tools=body["tools"] if request.offers_tools else None,  # fields in the client's order
        add_generation_prompt=not continues if opens_turn is None else opens_turn,
        continue_final_message=continues,
        variables=request.template_variables(),
    )


def _options(
    model: ChatModel, request: ChatCompletionRequest, prompt: list[int]
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
    )
