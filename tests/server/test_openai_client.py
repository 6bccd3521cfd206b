"""The current openai-python client against a running server."""

from __future__ import annotations

import concurrent.futures

import pytest

openai = pytest.importorskip("openai")

USER = {"role": "user", "content": "What is 3 + 4?"}
CHAT = {"model": "tiny", "messages": [USER], "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_and_its_stream_say_the_same(client):
    answer = client.chat.completions.create(**CHAT)
    chunks = list(
        client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    )
    content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert content == answer.choices[0].message.content
    assert chunks[0].choices[0].delta.role == answer.choices[0].message.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_client_accumulates_a_stream(client):
    body = {"model": "tiny", "messages": [USER], "max_tokens": 8}
    end_at_once = {"logit_bias": {"2": 100}}  # the id of <|im_end|> in the tiny tokenizer
    with client.chat.completions.stream(**body, extra_body=end_at_once) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].message.content == ""
    # The client's own way to say that an answer was cut off.
    with (
        client.chat.completions.stream(**body, extra_body={"ignore_eos": True}) as stream,
        pytest.raises(openai.LengthFinishReasonError) as caught,
    ):
        stream.get_final_completion()
    assert caught.value.completion.choices[0].message.content


def test_a_seed_repeats_an_answer_whatever_else_runs(client):
    def ask(seed):
        answer = client.chat.completions.create(**CHAT | {"temperature": 1, "seed": seed, "n": 2})
        return [choice.message.content for choice in answer.choices]

    alone = ask(7)
    with concurrent.futures.ThreadPoolExecutor(6) as executor:
        crowd = list(executor.map(ask, [7, 1, 7, 2, 7, 3]))
    assert [crowd[0], crowd[2], crowd[4]] == [alone] * 3
    assert alone[0] != alone[1], "choices have seeds of their own"


def test_logprobs_are_those_of_the_tokens(client):
    answer = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    joined = b"".join(bytes(token.bytes) for token in tokens)
    assert joined.decode(errors="replace") == answer.choices[0].message.content
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob <= 0, "greedy takes the likeliest"


def test_a_text_completion_and_its_stream_say_the_same(client):
    body = {"model": "tiny", "prompt": ["The quick", "You are"], "temperature": 0, "max_tokens": 6}
    answer = client.completions.create(**body)
    texts = ["", ""]
    for chunk in client.completions.create(**body, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in answer.choices]
    assert answer.usage.completion_tokens <= 12


def test_an_echo_scores_the_prompt(client):
    answer = client.completions.create(
        model="tiny", prompt="The quick brown fox", echo=True, logprobs=2, max_tokens=0
    )
    choice = answer.choices[0]
    assert choice.text == "The quick brown fox"
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob < 0 for logprob in choice.logprobs.token_logprobs[1:])
    assert choice.logprobs.text_offset[0] == 0


def test_sampling_extras_are_sent_in_the_extra_body(client):
    extra = {"top_k": 1, "ignore_eos": True, "chat_template_kwargs": {"enable_thinking": False}}
    greedy = client.chat.completions.create(
        **CHAT | {"max_tokens": 5}, extra_body={"ignore_eos": True}
    )
    answer = client.chat.completions.create(
        **CHAT | {"temperature": 1, "max_tokens": 5}, extra_body=extra
    )
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].message.content == greedy.choices[0].message.content


def test_the_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "enginery"


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "other"}, "NotFoundError", "model_not_found"),
        ({"temperature": 9}, "BadRequestError", "invalid_value"),
        ({"max_tokens": 100_000}, "BadRequestError", "context_length_exceeded"),
        ({"modalities": ["audio"]}, "BadRequestError", "unsupported_parameter"),
    ],
)
def test_errors_are_those_that_the_client_knows(client, change, error, code):
    with pytest.raises(getattr(openai, error)) as caught:
        client.chat.completions.create(**CHAT | change)
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"


def test_a_stream_that_is_closed_early_leaves_room_for_the_next(client):
    for _ in range(12):
        stream = client.chat.completions.create(
            **CHAT | {"max_tokens": 1500}, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()
    assert client.chat.completions.create(**CHAT).choices
