"""`/v1/responses`: items in, items out; later requests may go on from what is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from falcon.asgi import Request, Response

from engines.errors import InvalidRequest
from server.chat_task import ChatTask
from server.errors import ApiError
from server.registry import ChatModel, ModelRegistry
from server.responses.conversation import check_calls, to_messages
from server.responses.items import OutputItems, new_id
from server.responses.store import ResponseStore, StoredResponse
from server.routes.answering import off_loop, respond
from server.routes.conversing import begin_answers
from server.routes.response_writer import ResponseWriter
from server.schema.decode import decode
from server.schema.response_answer import (
    ReasoningSettings,
    ResponseDeleted,
    ResponseObject,
    TextSettings,
)
from server.schema.response_body import prepare
from server.schema.response_items import (
    ConversationItem,
    ItemList,
    ItemReference,
    MessageItem,
    OutputItem,
    OutputMessage,
    ReasoningItem,
)
from server.schema.responses import PageQuery, ResponseRequest, StoredQuery

_SEALED = "reasoning.encrypted_content"
_PREFIXES: dict[type[ConversationItem], str] = {MessageItem: "msg", ReasoningItem: "rs"}


class Responses:
    """Responses, whole or streamed, and those that are stored."""

    def __init__(self, models: ModelRegistry, store: ResponseStore) -> None:
        self._models = models
        self._store = store

    async def on_post(self, req: Request, resp: Response) -> None:
        body = prepare(await req.get_media())
        request = decode(body, ResponseRequest)
        model = self._models.find(request.model, ChatModel)
        req.context.record.model_id = model.id
        request.check()
        history, items = self._conversation(request)
        conversation = (*history, *items)
        task = await off_loop(req, _task, request, body, conversation)
        generation, output = await begin_answers(req, model, task)
        writer = ResponseWriter(
            _response(request, body, model),
            OutputItems(output.new_parser(), seals_reasoning=_SEALED in request.includes),
            model.text.tokenizer,
            has_logprobs=request.num_logprobs is not None,
            keep=lambda response: self._keep(response, conversation),
        )
        await respond(req, resp, generation, writer, streamed=bool(request.stream))

    async def on_get_response(self, req: Request, resp: Response, response_id: str) -> None:
        """Tell of a response that is stored."""
        decode(req.params, StoredQuery, is_form=True)
        resp.media = self._store.get(response_id).response

    async def on_delete_response(self, req: Request, resp: Response, response_id: str) -> None:
        """Forget a response."""
        self._store.delete(response_id)
        resp.media = ResponseDeleted(id=response_id)

    async def on_get_items(self, req: Request, resp: Response, response_id: str) -> None:
        """List what went into a response, a page at a time."""
        query = decode(req.params, PageQuery, is_form=True)
        items = list(self._store.get(response_id).input)
        if query.order == "desc":
            items.reverse()
        items = _after(items, query.after)
        page = items[: query.limit]
        resp.media = ItemList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(items) > query.limit,
        )

    def _conversation(
        self, request: ResponseRequest
    ) -> tuple[Sequence[ConversationItem], Sequence[ConversationItem]]:
        """What was said before, and what the request adds to it."""
        history: Sequence[ConversationItem] = ()
        if request.previous_response_id is not None:
            previous = self._store.get(request.previous_response_id, "previous_response_id")
            history = previous.conversation
        given = request.input
        if isinstance(given, str):
            items: list[ConversationItem] = [MessageItem(role="user", content=given)]
        else:
            items = [
                self._referenced(item, index) if isinstance(item, ItemReference) else item
                for index, item in enumerate(given)
            ]
        check_calls(history, items)
        for item in items:
            item.id = item.id or new_id(_PREFIXES.get(type(item), "fc"))
        return history, items

    def _referenced(self, reference: ItemReference, index: int) -> ConversationItem:
        item = self._store.item(reference.id)
        if item is None:
            raise ApiError(
                404,
                f"input[{index}].id is {reference.id!r}, but no stored response has that item",
                param=f"input[{index}].id",
                code="not_found",
            )
        return item

    def _keep(self, response: ResponseObject, conversation: tuple[ConversationItem, ...]) -> None:
        if response.store:
            output = tuple(map(_as_input, response.output))
            self._store.put(StoredResponse(response, conversation, output))


def _task(
    request: ResponseRequest, body: dict[str, Any], conversation: Sequence[ConversationItem]
) -> ChatTask:
    messages = to_messages(conversation, request.instructions)
    if not messages:
        raise InvalidRequest("input holds no message", "input")
    functions = request.offered_functions()
    return ChatTask(
        messages=messages,
        sampling=request.sampling(),
        answer_limit=request.max_output_tokens,
        num_logprobs=request.num_logprobs,
        tools=_chat_tools(body["tools"]) if functions else None,
        functions=functions,
        must_call=request.must_call,
        is_parallel=request.parallel_tool_calls is not False,
        grammar=request.grammar(),
        thinking_budget=request.thinking_budget,
        variables=request.template_variables(),
        drops_oldest=request.truncation == "auto",
        messages_field="input",
    )


def _chat_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As chat requests have them, their fields in the client's order."""
    left_out = ("type", "strict")
    return [
        {
            "type": "function",
            "function": {name: value for name, value in tool.items() if name not in left_out},
        }
        for tool in tools
    ]


def _response(request: ResponseRequest, body: dict[str, Any], model: ChatModel) -> ResponseObject:
    """What is known of a response before its first token."""
    sampling = request.sampling().sampling_params(
        model.text.generation_config,
        max_tokens=1,
        vocab_size=model.worker.vocab_size,
        num_logprobs=None,
    )
    asked = body.get("text") or {}
    return ResponseObject(
        id=new_id("resp"),
        created_at=int(time.time()),
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=request.model,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        reasoning=ReasoningSettings(
            effort=request.effort,
            summary=None if request.reasoning is None else request.reasoning.summary,
        ),
        store=request.is_stored,
        temperature=sampling.temperature,
        text=TextSettings(format=asked.get("format") or {"type": "text"}),
        tool_choice=body.get("tool_choice") or "auto",
        tools=body.get("tools") or [],
        top_logprobs=request.top_logprobs or 0,
        top_p=sampling.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
        metadata=request.metadata or {},
    )


def _as_input(item: OutputItem) -> ConversationItem:
    if not isinstance(item, OutputMessage):
        return item
    return MessageItem(role=item.role, content=list(item.content), id=item.id, status=item.status)


def _after(items: list[ConversationItem], after: str | None) -> list[ConversationItem]:
    if after is None:
        return items
    for index, item in enumerate(items):
        if item.id == after:
            return items[index + 1 :]
    raise InvalidRequest(f"after is {after[:64]!r}, but no item has that id", "after")
