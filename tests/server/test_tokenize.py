"""`/tokenize` and `/detokenize`: the tokens that a request would have, and their text."""

from __future__ import annotations

import httpx
import pytest

from tests.server.conversation import CHAT_PATH, post
from tests.server.described import check
from tests.server.speaking import prompts, speaking_model

MESSAGES = [{"role": "user", "content": "Hi you"}]


@pytest.fixture
def model(tmp_path):
    return speaking_model(tmp_path / "engine", "Yes.")


def tokenize(model, **body) -> dict:
    response: httpx.Response = post("/tokenize", body, model=model)
    assert response.status_code == 200, response.text
    check(response.json(), "Tokens")
    return response.json()


def test_a_prompt_has_tokens_that_read_as_it(model):
    told = tokenize(model, prompt="Hello you", return_token_strs=True)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert "".join(told["token_strs"]) == "Hello you"
    assert told["max_model_len"] == 256
    back = post("/detokenize", {"tokens": told["tokens"]}, model=model)
    check(back.json(), "DetokenizedText")
    assert back.json() == {"prompt": "Hello you"}


def test_a_conversation_has_the_tokens_that_chat_computes(model):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    for extra in ({}, {"tools": tools}):
        told = tokenize(model, messages=MESSAGES, **extra)
        answered = post(CHAT_PATH, {"messages": MESSAGES, **extra}, model=model).json()
        assert told["count"] == answered["usage"]["prompt_tokens"]
        text = post("/detokenize", {"tokens": told["tokens"]}, model=model).json()["prompt"]
        assert text == prompts(model)[-1]
        assert told["token_strs"] is None


def test_the_turn_of_the_assistant_may_be_left_out_or_gone_on_with(model):
    whole = tokenize(model, messages=MESSAGES)["tokens"]
    closed = tokenize(model, messages=MESSAGES, add_generation_prompt=False)["tokens"]
    assert whole[: len(closed)] == closed
    assert len(whole) > len(closed)
    begun = [*MESSAGES, {"role": "assistant", "content": "3 + 4"}]
    longer = tokenize(model, messages=begun, continue_final_message=True)["tokens"]
    assert longer[: len(whole)] == whole


def test_the_model_may_be_left_out_where_there_is_one(model):
    response = post("/tokenize", {"prompt": "Hi", "model": None}, model=model)
    assert response.json()["count"] > 0


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "Hi", "messages": MESSAGES}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": MESSAGES, "continue_final_message": True},
         "continue_final_message"),
        ("/detokenize", {"tokens": [5, 99999]}, "tokens[1]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(model, path, body, param):
    response = post(path, body, model=model)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
