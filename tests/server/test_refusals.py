"""What a client may not send: a 400 that names the field, its value and the limit."""

import dataclasses

import pytest

from tests.server.apps import http_client, tiny_engine, tiny_model, tiny_text
from tests.server.conversation import CHAT_PATH, COMPLETIONS_PATH, post, said, with_app
from tests.server.fakes import write_text_files

USER = {"role": "user", "content": "Hi"}
VOCAB_SIZE = tiny_text().tokenizer.vocab_size
BOTH = [
    ({"n": 0}, "n", "n is 0, but it must be at least 1"),
    ({"n": 500}, "n", "n is 500, but it must be at most 128"),
    ({"n": True}, "n", "n is true, but it must be an integer"),
    ({"temperature": 3}, "temperature", "temperature is 3, but it must be at most 2"),
    ({"temperature": "hot"}, "temperature", 'temperature is "hot", but it must be a number'),
    ({"top_p": -0.1}, "top_p", "top_p is -0.1, but it must be at least 0"),
    ({"top_k": -2}, "top_k", "top_k is -2, but it must be at least -1"),
    ({"min_p": 2}, "min_p", "min_p is 2, but it must be at most 1"),
    ({"presence_penalty": 3}, "presence_penalty", "at most 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "at least -2"),
    ({"repetition_penalty": 0}, "repetition_penalty", "must be at least 0.01"),
    ({"seed": 2**63}, "seed", "at most 9223372036854775807"),
    ({"max_tokens": -1}, "max_tokens", "max_tokens is -1, but it must be at least"),
    ({"max_tokens": 1.5}, "max_tokens", "it must be an integer"),
    ({"stop": [""]}, "stop[0]", "its length must be at least 1"),
    ({"stop": ["a"] * 17}, "stop", "its length must be at most 16"),
    ({"stop": ["a", "b" * 257]}, "stop[1]", "its length must be at most 256"),
    ({"stop": 3}, "stop", "it must be a string or a list"),
    ({"stop_token_ids": [VOCAB_SIZE]}, "stop_token_ids", f"run from 0 to {VOCAB_SIZE - 1}"),
    ({"stop_token_ids": [0] * 129}, "stop_token_ids", "at most 128"),
    ({"logit_bias": {"5": 101}}, "logit_bias", "at most 100"),
    ({"logit_bias": {"five": 1}}, "logit_bias", "has the key 'five'"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "has the key '-1'"),
    ({"logit_bias": {str(VOCAB_SIZE): 1}}, "logit_bias", f"the token id {VOCAB_SIZE}"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias", "at most 1024"),
    ({"stream": "yes"}, "stream", "must be true or false"),
    ({"stream_options": {}}, "stream_options", "only allowed when stream is true"),
    ({"min_tokens": 3}, "min_tokens", "does not support a least number of tokens"),
    ({"include_stop_str_in_output": True}, "include_stop_str_in_output", "does not support"),
]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CHAT = [
    ({"messages": []}, "messages", "its length must be at least 1"),
    ({"messages": "Hi"}, "messages", 'messages is "Hi", but it must be a list'),
    ({"messages": [USER] * 4097}, "messages", "its length must be at most 4096"),
    ({"messages": [{"content": "a"}]}, "messages[0].role", "is missing"),
    ({"messages": [USER, {"role": "me", "content": "a"}]}, "messages[1].role", "one of system,"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "is null"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content", "only an assistant message"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
        "this model reads no images",
    ),
    ({"max_tokens": 0}, "max_tokens", "max_tokens is 0, but it must be at least 1"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
    ({"top_logprobs": 2}, "top_logprobs", "it needs logprobs to be true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "at most 20"),
    ({"tools": [{"type": "web"}]}, "tools[0].type", "functions are the only tools"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "is missing"),
    ({"tool_choice": "required"}, "tool_choice", "asks for a call, but tools is empty"),
    ({"tool_choice": "sometimes"}, "tool_choice", "none, auto, required or name a function"),
    (
        {"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        "tool_choice.type",
        'is "custom", but it must be one of',
    ),
    (
        {
            "tools": TOOLS,
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "g"}}],
                },
            },
        },
        "tool_choice",
        "'g'",
    ),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
        "names the function 'g', but tools has f",
    ),
    ({"tools": TOOLS * 2}, "tools[1]", "the name 'f', which is used twice"),
    ({"tools": TOOLS, "functions": [{"name": "f"}]}, "functions", "one replaces the other"),
    ({"tools": TOOLS}, "tools", "knows no function calls"),
    ({"function_call": {"name": "f"}}, "function_call", "but functions is empty"),
    ({"function_call": "required", "functions": [{"name": "f"}]}, "function_call", "none, auto or"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "must be one of"),
    ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex", "one form"),
    ({"guided_regex": "(a"}, "guided_regex", "cannot be used as a regular expression"),
    ({"guided_choice": []}, "guided_choice", "no texts to choose from"),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}},
            }
        },
        "response_format.json_schema.schema",
        "as a JSON schema",
    ),
    ({"thinking_budget": -1}, "thinking_budget", "at least 0"),
    ({"reasoning_effort": "much"}, "reasoning_effort", "must be one of none, minimal,"),
    ({"modalities": ["text", "audio"]}, "modalities", "more than text"),
    ({"audio": {"voice": "x"}}, "audio", "spoken output"),
    ({"chat_template": "{{ x }}"}, "chat_template", "does not support a chat template"),
    (
        {"chat_template_kwargs": {"messages": []}},
        "chat_template_kwargs.messages",
        "a field of the request itself",
    ),
    ({"continue_final_message": True}, "continue_final_message", "not an assistant message"),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
        "only one can be",
    ),
]
COMPLETIONS = [
    ({"prompt": ""}, "prompt", "prompt is empty"),
    ({"prompt": []}, "prompt", "prompt is an empty list"),
    ({"prompt": ["a", ""]}, "prompt[1]", "prompt[1] is empty"),
    ({"prompt": [1, "a"]}, "prompt", "prompt mixes token ids"),
    ({"prompt": [[1], [VOCAB_SIZE]]}, "prompt[1]", f"prompt[1] has the token id {VOCAB_SIZE}"),
    ({"prompt": None}, "prompt", "it must be a string or a list"),
    ({"prompt": ["a"] * 100, "n": 2}, "prompt", "make 200 answers, but"),
    ({"logprobs": 21}, "logprobs", "at most 20"),
    ({"best_of": 2}, "best_of", "best_of is 2 and n is 1"),
    ({"guided_regex": "(a"}, "guided_regex", "cannot be used as a regular expression"),
    ({"suffix": "x"}, "suffix", "before a suffix"),
]


def check(path, body, param, message):
    response = post(path, body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert message in error["message"]
    assert error["code"] in {"invalid_value", "unsupported_value", "unsupported_parameter"}


@pytest.mark.parametrize(("fields", "param", "message"), BOTH + CHAT)
def test_a_bad_chat_field_is_named(fields, param, message):
    check(CHAT_PATH, said(fields), param, message)


@pytest.mark.parametrize(("fields", "param", "message"), BOTH + COMPLETIONS)
def test_a_bad_completion_field_is_named(fields, param, message):
    check(COMPLETIONS_PATH, {"prompt": "a"} | fields, param, message)


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS_PATH])
def test_what_is_missing_is_named(path):
    assert post(path, {"model": None}).json()["error"]["param"] == "model"
    missing = post(path, {"model": "tiny"}).json()["error"]
    assert missing["message"].endswith("is missing, but it is required")


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS_PATH])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "the body is not a JSON object"),
        (b'{"model": "tiny", "prompt": "\xff"}', "UTF-8"),
        (b'{"model": "tiny", "prompt": "\\udc00"}', "The body is not valid JSON"),
        (b"[" * 100_000, "The body is not valid JSON: nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_a_400(path, content, message):
    async def scenario(app):
        async with http_client(app) as client:
            headers = {"content-type": "application/json"}
            return await client.post(path, content=content, headers=headers)

    response = with_app(tiny_model(), scenario)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(("path", "param"), [(CHAT_PATH, "messages"), (COMPLETIONS_PATH, "prompt")])
@pytest.mark.parametrize(
    ("length", "fields", "message"),
    [
        (100, {}, "but the prompt has"),
        (10, {"max_tokens": 60}, "and 60 for the answer"),
    ],
)
def test_what_does_not_fit_the_context_is_refused_with_both_numbers(
    path, param, length, fields, message
):
    text = "x" * length
    body = {"prompt": text} if param == "prompt" else {"messages": [USER | {"content": text}]}
    response = post(path, body | fields, model=tiny_model(tiny_engine("a", max_context=64)))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == param
    assert "maximum context length is 64 tokens" in error["message"]
    assert message in error["message"]


def test_a_prompt_may_fill_the_context_when_nothing_is_to_follow():
    body = {"prompt": [5] * 64, "max_tokens": 0}
    model = tiny_model(tiny_engine("a", max_context=64))
    assert post(COMPLETIONS_PATH, body, model=model).status_code == 200


def test_an_unknown_model_is_a_404():
    response = post(CHAT_PATH, said({"model": "other"}))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_what_the_chat_template_refuses_is_a_400(tmp_path):
    text = tiny_text()
    template = "{{ raise_exception('Roles must alternate') }}"
    refusing = type(text).load(write_text_files(tmp_path, template))
    model = tiny_model()
    response = post(CHAT_PATH, said({}), model=dataclasses.replace(model, text=refusing))
    assert response.status_code == 400
    assert "Roles must alternate" in response.json()["error"]["message"]


def test_more_answers_than_the_server_holds_are_refused():
    model = tiny_model(tiny_engine("a", max_num_seqs=1), max_queue_size=2)
    response = post(CHAT_PATH, said({"n": 4}), model=model)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": True}, "store"),
        ({"verbosity": "low"}, "verbosity"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {"user_location": None}}, "web_search_options"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}],
                    }
                ]
            },
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_this_server_does_not_have_is_an_unsupported_parameter(fields, param):
    response = post(CHAT_PATH, said({}) | fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")


def test_what_openai_keeps_for_itself_is_taken_and_has_no_effect():
    kept = {
        "user": "me",
        "safety_identifier": "me",
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "verbosity": "medium",
        "store": False,
    }
    assert post(CHAT_PATH, said(kept)).status_code == 200


def test_an_integer_may_be_written_as_a_fraction():
    body = said({"max_tokens": 2.0, "n": 2.0, "seed": 1.0, "stop_token_ids": [3.0]})
    answer = post(CHAT_PATH, body).json()
    assert len(answer["choices"]) == 2
    error = post(CHAT_PATH, said({"max_tokens": 2.5})).json()["error"]
    assert (error["param"], error["message"][:22]) == ("max_tokens", "max_tokens is 2.5, but")
