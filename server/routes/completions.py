"""`/v1/completions`: prompts in, as text or token ids, and what follows them out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from falcon.asgi import Request, Response

from server.generation import Generation, GenerationOptions, token_limit
from server.output_format import compiled
from server.registry import ChatModel, ModelRegistry
from server.routes.answering import AnswerIdentity, off_loop, respond
from server.routes.completion_writer import CompletionWriter
from server.schema.completions import DEFAULT_MAX_TOKENS, CompletionRequest
from server.schema.decode import decode
from server.schema.unsupported import COMPLETIONS, check_supported
from server.text.constraints import AnswerConstraint


class Completions:
    """Text completions, whole or streamed as server-sent events."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(body, CompletionRequest)
        model = self._models.find(request.model, ChatModel)
        req.context.record.model_id = model.id
        request.check(model.worker.vocab_size)
        check_supported(body, COMPLETIONS)
        prompts = await off_loop(req, _encode, model, request)
        grammar = request.grammar()
        constraint = None
        if grammar is not None:  # compiling takes milliseconds, or as much as a second
            constraint = await asyncio.to_thread(compiled, model, grammar)
        options = _options(model, request, prompts, constraint)
        generation = Generation(model, prompts, options, req.context.record)
        writer = CompletionWriter(
            AnswerIdentity.new("cmpl", request.model, model),
            model.text.tokenizer,
            has_logprobs=request.logprobs is not None,
            includes_usage=request.includes_usage,
        )
        await respond(req, resp, generation, writer, streamed=bool(request.stream))


def _encode(model: ChatModel, request: CompletionRequest) -> list[list[int]]:
    return [
        model.text.encode_prompt(prompt) if isinstance(prompt, str) else prompt
        for prompt in request.prompts
    ]


def _options(
    model: ChatModel,
    request: CompletionRequest,
    prompts: list[list[int]],
    new_constraint: Callable[[], AnswerConstraint] | None,
) -> GenerationOptions:
    room = min(
        token_limit(model.worker.max_context, len(prompt), request.max_tokens, "prompt")
        for prompt in prompts
    )
    has_logprobs = request.logprobs is not None
    return GenerationOptions(
        sampling=request.sampling_params(
            model.text.generation_config,
            max_tokens=min(room, DEFAULT_MAX_TOKENS) if request.max_tokens is None else room,
            vocab_size=model.worker.vocab_size,
            num_logprobs=request.logprobs,
            prompt_logprobs=bool(request.echo) and has_logprobs,
        ),
        num_choices=request.num_choices,
        stops=request.stop_strings(),
        skip_special_tokens=request.skip_special_tokens is not False,
        new_constraint=new_constraint,
        echoes=_echoes(model, request) if request.echo else None,
    )


def _echoes(model: ChatModel, request: CompletionRequest) -> tuple[str, ...]:
    return tuple(
        prompt if isinstance(prompt, str) else model.text.decode(prompt)
        for prompt in request.prompts
    )
