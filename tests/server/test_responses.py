"""`/v1/responses` over HTTP: items in and out, whole and streamed, stored and gone on from."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from server.app import create_app
from server.config import ServerConfig
from server.lifecycle import Lifecycle
from server.registry import ModelRegistry
from server.schema.response_events import ResponseEvent
from tests.server.apps import http_client
from tests.server.described import check
from tests.server.speaking import prompts, speaking_model

PATH = "/v1/responses"
EVENTS = TypeAdapter(ResponseStreamEvent)
NAMES = {kind.__struct_config__.tag: kind.__name__ for kind in ResponseEvent.__args__}
TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
THOUGHT = "<think>\nlet me see\n</think>\n\n"


@pytest.fixture
def say(tmp_path):
    return lambda reply, **options: speaking_model(tmp_path / "engine", reply, **options)


def visit(model, scenario, **settings):
    """Run a scenario with a client of one app whose engine runs."""

    async def run():
        models = ModelRegistry([model])
        lifecycle = Lifecycle(models, drain_timeout_s=0)
        await lifecycle.start()
        try:
            config = ServerConfig(**settings)
            async with http_client(create_app(models, config, (), lifecycle)) as client:
                return await scenario(client)
        finally:
            await lifecycle.stop()

    return asyncio.run(run())


def ask(model, *bodies, **settings) -> list[httpx.Response]:
    """Send requests one after the other; `{previous}` stands for the last response's id."""

    async def scenario(client):
        answers = []
        for body in bodies:
            if body.get("previous_response_id") == "{previous}":
                body = body | {"previous_response_id": answers[-1].json()["id"]}
            answers.append(await client.post(PATH, json={"model": "tiny"} | body))
        return answers

    return visit(model, scenario, **settings)


def answer(model, **body):
    """One response, which OpenAI's own model of it takes."""
    (response,) = ask(model, {"input": "Hi"} | body)
    assert response.status_code == 200, response.text
    Response.model_validate(response.json())
    check(response.json(), "ResponseObject")
    return response.json()


def streamed(model, **body):
    """The events of one response, each as OpenAI's own models take it."""
    (response,) = ask(model, {"input": "Hi", "stream": True} | body)
    assert response.status_code == 200, response.text
    events = []
    for block in response.text.strip().split("\n\n"):
        if block == ": ping":
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENTS.validate_python(event)
        check(event, NAMES[event["type"]])
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_an_answer_is_a_message_with_what_was_asked(say):
    response = answer(
        say("Hello you"), instructions="Be kind.", metadata={"a": "b"}, temperature=0, user="me"
    )
    assert response["status"] == "completed"
    (item,) = response["output"]
    assert item["role"] == "assistant"
    assert item["content"] == [
        {"type": "output_text", "text": "Hello you", "annotations": [], "logprobs": []}
    ]
    assert response["instructions"] == "Be kind."
    assert response["metadata"] == {"a": "b"}
    assert response["temperature"] == 0
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_reasoning_a_message_and_calls_are_items_in_their_order(say):
    response = answer(say(f"{THOUGHT}Let me look.\n{CALL}\n{CALL}"), tools=[TOOL])
    reasoning, message, first, second = response["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "let me see"}]
    assert reasoning["summary"] == []
    assert message["content"][0]["text"] == "Let me look."
    assert first["name"] == second["name"] == "get_weather"
    assert first["arguments"] == '{"city": "Oslo"}'
    assert first["call_id"] != second["call_id"]
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


def test_a_stream_tells_of_every_item_from_its_beginning_to_its_end(say):
    events = streamed(say(f"{THOUGHT}Let me look.\n{CALL}"), tools=[TOOL])
    kinds = [event["type"].removeprefix("response.") for event in events]
    once = [kind for index, kind in enumerate(kinds) if kind != kinds[index - 1]]
    assert once == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done
    for kind, index in (("reasoning_text", 0), ("output_text", 1)):
        deltas = [e["delta"] for e in events if e["type"] == f"response.{kind}.delta"]
        assert "".join(deltas) == done[index]["content"][0]["text"]
    pieces = [e["delta"] for e in events if e["type"].endswith("arguments.delta")]
    assert "".join(pieces) == done[2]["arguments"] == '{"city": "Oslo"}'


def test_a_stream_and_a_whole_answer_are_the_same(say):
    model = say(f"{THOUGHT}Yes.")
    whole = answer(model)
    last = streamed(model)[-1]["response"]
    ids = {"id", "created_at", "completed_at", "output", "usage"}
    assert {k: v for k, v in whole.items() if k not in ids} == {
        k: v for k, v in last.items() if k not in ids
    }
    assert whole["usage"] == last["usage"]
    assert [item["content"] for item in whole["output"]] == [i["content"] for i in last["output"]]


def test_an_answer_that_is_cut_off_is_incomplete(say):
    model = say("Hello you and many others")
    whole = answer(model, max_output_tokens=2)
    events = streamed(model, max_output_tokens=2)
    assert events[-1]["type"] == "response.incomplete"
    for response in (whole, events[-1]["response"]):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][-1]["status"] == "incomplete"


def test_an_empty_answer_is_an_empty_message(say):
    (item,) = answer(say(""))["output"]
    assert item["content"][0]["text"] == ""


def test_a_conversation_of_items_is_rendered_like_one_of_messages(say):
    model = say("Rain.")
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Oslo?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [],
         "content": [{"type": "reasoning_text", "text": "look it up"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "One moment.", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    ]  # fmt: skip
    answer(model, input=items, instructions="Be kind.")
    assert prompts(model) == [
        "<|im_start|>system\nBe kind.\n\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nOslo?<|im_end|>\n"
        '<|im_start|>assistant\n(look it up)One moment.{"name": "get_weather", "arguments": {}}'
        "<|im_end|>\n<|im_start|>tool\nrain<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_a_response_goes_on_from_an_earlier_one_without_its_instructions(say):
    model = say(f"{THOUGHT}Yes.")
    first, second = ask(
        model,
        {"input": "One", "instructions": "Be kind."},
        {"input": "Two", "previous_response_id": "{previous}"},
    )
    assert second.json()["previous_response_id"] == first.json()["id"]
    assert prompts(model)[1] == (
        "<|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\n(let me see)Yes.<|im_end|>\n"
        "<|im_start|>user\nTwo<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_is_stored_is_told_listed_and_deleted(say):
    async def scenario(client):
        body = {"model": "tiny", "input": "One"}
        first = (await client.post(PATH, json=body)).json()
        body = {"model": "tiny", "input": "Two", "previous_response_id": first["id"]}
        second = (await client.post(PATH, json=body)).json()
        path = f"{PATH}/{second['id']}"
        assert (await client.get(path)).json() == second
        pages = [(await client.get(f"{path}/input_items", params={"limit": 2})).json()]
        after = {"limit": 2, "after": pages[0]["last_id"]}
        pages.append((await client.get(f"{path}/input_items", params=after)).json())
        for page in pages:
            check(page, "ItemList")
        assert [page["has_more"] for page in pages] == [True, False]
        roles = [item["role"] for page in pages for item in page["data"]]
        assert roles == ["user", "assistant", "user"]
        deleted = await client.delete(f"{PATH}/{first['id']}")
        assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
        gone = await client.get(f"{PATH}/{first['id']}")
        assert gone.status_code == (await client.delete(f"{PATH}/{first['id']}")).status_code == 404
        body["previous_response_id"] = second["id"]
        return await client.post(PATH, json=body)

    assert visit(say("Yes."), scenario).status_code == 200, "deleting breaks no chain"


def test_nothing_is_kept_of_what_is_not_to_be_stored(say):
    stored, gone = ask(
        say("Yes."),
        {"input": "One", "store": False},
        {"input": "Two", "previous_response_id": "{previous}"},
    )
    assert stored.json()["store"] is False
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "previous_response_not_found"
    assert gone.json()["error"]["param"] == "previous_response_id"


def test_the_store_forgets_the_oldest(say):
    async def scenario(client):
        ids = []
        for text in "abc":
            answered = await client.post(PATH, json={"model": "tiny", "input": text})
            ids.append(answered.json()["id"])
        return [(await client.get(f"{PATH}/{id}")).status_code for id in ids]

    assert visit(say("Yes."), scenario, max_stored_responses=2) == [404, 200, 200]


def test_reasoning_comes_back_from_a_client_that_keeps_its_sealed_form_alone(say):
    model = say(f"{THOUGHT}Yes.")
    reasoning, message = answer(model, include=["reasoning.encrypted_content"])["output"]
    items = [
        {"role": "user", "content": "One"},
        {k: reasoning[k] for k in ("type", "id", "encrypted_content")} | {"summary": []},
        message,
        {"role": "user", "content": "Two"},
    ]
    answer(model, input=items, store=False)
    assert "(let me see)Yes." in prompts(model)[1]


def test_the_oldest_turns_are_left_out_where_the_client_allows_it(say):
    turns = [{"role": role, "content": word * 20} for word in ("fox ", "dog ", "cat ")
             for role in ("user", "assistant")]  # fmt: skip
    items = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "Hi"}]
    model = say("Yes.", max_context=160)
    refused, answered = ask(model, {"input": items}, {"input": items, "truncation": "auto"})
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "input"
    assert answered.status_code == 200, answered.text
    (prompt,) = prompts(model)
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert "fox" not in prompt
    assert "Hi" in prompt


def test_logprobs_are_those_of_the_text(say):
    response = answer(say("Hello you"), include=["message.output_text.logprobs"], top_logprobs=2)
    (part,) = response["output"][0]["content"]
    assert "".join(token["token"] for token in part["logprobs"]) == "Hello you"
    assert all(len(token["top_logprobs"]) == 2 for token in part["logprobs"])


@pytest.mark.parametrize(
    ("choice", "is_constrained"),
    [
        ("required", True),
        ({"type": "function", "name": "get_weather"}, True),
        ({"type": "allowed_tools", "mode": "required",
          "tools": [{"type": "function", "name": "get_weather"}]}, True),
        ("none", False),
    ],
)  # fmt: skip
def test_the_choice_of_tools_is_that_of_chat(say, choice, is_constrained):
    model = say(CALL)
    answer(model, tools=[TOOL], tool_choice=choice)
    assert (model.worker._engine.added[0].constraint is not None) == is_constrained


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"type": "reasoning"}], "temperature": 3}, "temperature", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0].type", "unsupported_parameter"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "unsupported_parameter"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
         "input[0].call_id", "invalid_value"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [TOOL, TOOL]}, "tools[1]", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function", "name": "f"}, "tools": [TOOL]},
         "tool_choice", "invalid_value"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "odd"}}}},
         "text.format.schema", "invalid_value"),
        ({"include": ["file_search_call.results"]}, "include[0]", "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_by_name(say, body, param, code):
    (response,) = ask(say("Yes."), {"input": "Hi"} | body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error


def test_an_item_can_be_named_by_its_id(say):
    async def scenario(client):
        first = (await client.post(PATH, json={"model": "tiny", "input": "One"})).json()
        items = [{"type": "item_reference", "id": first["output"][0]["id"]}]
        items.append({"role": "user", "content": "Two"})
        return await client.post(PATH, json={"model": "tiny", "input": items})

    model = say("Yes.")
    assert visit(model, scenario).status_code == 200
    assert "assistant\nYes.<|im_end|>" in prompts(model)[1]


def test_a_stream_that_breaks_off_says_so_and_is_not_stored(say):
    model = say("Hello you and others")
    engine = model.worker._engine
    step = engine.step

    def fail_later():
        if engine.num_steps == 3:
            engine.failure = RuntimeError("boom")
        return step()

    engine.step = fail_later
    events = streamed(model)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    failed = events[-1]["response"]
    assert failed["status"] == "failed"
    assert "boom" not in json.dumps(events)


def test_a_stream_begins_before_the_prompt_is_computed(say):
    model = say("Yes.")
    model.worker._engine.hold()

    async def scenario(client):
        body = {"model": "tiny", "input": "Hi", "stream": True}
        request = client.build_request("POST", PATH, json=body)
        seen = []

        async def receive_first(message):
            seen.append(message.get("body", b""))
            if b"response.in_progress" in b"".join(seen):
                model.worker._engine.run()

        app = client._transport.app

        async def watched(scope, receive, send):
            async def send_on(message):
                await receive_first(message)
                await send(message)

            await app(scope, receive, send_on)

        client._transport.app = watched
        response = await client.send(request)
        return response.text

    assert "response.completed" in visit(model, scenario)
