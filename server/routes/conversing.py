"""From a task to the answers in the works: what chat, responses and messages share."""

from __future__ import annotations

import asyncio
import bisect

from falcon.asgi import Request

from engines.errors import ContextLengthExceeded
from server.chat_task import ChatTask, Message
from server.generation import Generation, GenerationOptions, token_limit
from server.output_format import OutputFormat, output_format
from server.registry import ChatModel
from server.routes.answering import off_loop

# Whose messages stay when the oldest are left out.
_LASTING = frozenset({"system", "developer"})


async def begin_answers(
    req: Request, model: ChatModel, task: ChatTask
) -> tuple[Generation, OutputFormat]:
    """Render, encode and queue a task; what comes back reads the text of its answers.

    Raises:
        RequestError: The task cannot be rendered, compiled or queued.
        ApiError: The model cannot do what is asked for.
    """
    prompt = await off_loop(req, encode_task, model, task)
    # Compiling a grammar takes milliseconds, or as much as a second.
    output = await asyncio.to_thread(output_format, model, task, prompt)
    options = _options(model, task, prompt, output)
    return Generation(model, [prompt], options, req.context.record), output


def encode_task(model: ChatModel, task: ChatTask) -> list[int]:
    """The prompt, without the oldest messages where the task allows it and they do not fit.

    Raises:
        InvalidRequest: The template refuses the messages.
    """
    prompt = _encode(model, task, task.messages)
    room = model.worker.max_context - (task.answer_limit or 1)
    if len(prompt) <= room or not task.drops_oldest:
        return prompt
    beginnings = [i for i, message in enumerate(task.messages) if message["role"] == "user"][1:]
    lengths: dict[int, list[int]] = {}

    def fits(start: int) -> bool:
        lengths[start] = _encode(model, task, _since(task.messages, start))
        return len(lengths[start]) <= room

    first = bisect.bisect_left(beginnings, True, key=fits)
    if first == len(beginnings):
        raise ContextLengthExceeded(
            f"This model's maximum context length is {model.worker.max_context} tokens, but the "
            f"last turn alone leaves no room for an answer of {task.answer_limit or 1}",
            task.messages_field,
        )
    return lengths[beginnings[first]]


def _since(messages: list[Message], start: int) -> list[Message]:
    return [
        message
        for index, message in enumerate(messages)
        if index >= start or message["role"] in _LASTING
    ]


def _encode(model: ChatModel, task: ChatTask, messages: list[Message]) -> list[int]:
    return model.text.encode_chat(
        messages,
        tools=task.tools,
        add_generation_prompt=task.opens_turn,
        continue_final_message=task.continues,
        variables=task.variables,
    )


def _options(
    model: ChatModel, task: ChatTask, prompt: list[int], output: OutputFormat
) -> GenerationOptions:
    worker, sampling = model.worker, task.sampling
    field, asked = task.messages_field, task.answer_limit
    limit = token_limit(
        worker.max_context, len(prompt), None if task.is_limit_cut else asked, field
    )
    if asked is not None:
        limit = min(limit, asked)
    if task.total_limit is not None:
        limit = min(limit, _room(len(prompt), task.total_limit))
    return GenerationOptions(
        sampling=sampling.sampling_params(
            model.text.generation_config,
            max_tokens=limit,
            vocab_size=worker.vocab_size,
            num_logprobs=task.num_logprobs,
        ),
        num_choices=sampling.num_choices,
        stops=sampling.stop_strings(output.stops),
        skip_special_tokens=sampling.skip_special_tokens is not False,
        new_constraint=output.new_constraint,
        new_counter=output.new_counter,
    )


def _room(num_prompt_tokens: int, total_limit: int) -> int:
    if num_prompt_tokens >= total_limit:
        raise ContextLengthExceeded(
            f"max_length is {total_limit}, but the prompt alone has {num_prompt_tokens} tokens, "
            "which leaves no room for an answer",
            "max_length",
        )
    return total_limit - num_prompt_tokens
