import asyncio

import httpx
import pytest

from benchmarks.client import Client, RequestOptions
from benchmarks.prompts import Prompt
from tests.benchmarks.fake_server import TEMPLATE_TOKENS, FakeServer

PROMPT = Prompt(text="one two three")


@pytest.fixture(scope="module")
def fake():
    with FakeServer() as server:
        yield server


def send(url, model="good", prompt=PROMPT, **options):
    async def exchange():
        defaults = {"endpoint": "chat", "max_tokens": 5}
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            return await Client(http, RequestOptions(model=model, **(defaults | options))).send(
                prompt
            )

    return asyncio.run(exchange())


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_streamed_answer_is_timed_at_every_chunk_with_text(fake, endpoint):
    result = send(fake.url, endpoint=endpoint)
    assert result.error is None
    assert result.ttft_s is not None
    assert 0 < result.ttft_s <= result.latency_s
    assert len(result.gaps_s) == 4  # five tokens; the role and the end carry no text
    assert result.num_output_tokens == 5
    assert result.tokens_from_usage
    assert result.num_prompt_tokens == 6 + (TEMPLATE_TOKENS if endpoint == "chat" else 0)


def test_without_usage_the_chunks_are_counted(fake):
    result = send(fake.url, model="no-usage")
    assert result.num_output_tokens == 5
    assert result.num_prompt_tokens is None
    assert not result.tokens_from_usage


def test_an_answer_in_one_piece_has_no_time_to_first_token(fake):
    result = send(fake.url, stream=False)
    assert result.error is None
    assert result.ttft_s is None
    assert result.gaps_s == ()
    assert result.num_output_tokens == 5


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("full", "HTTP 429 rate_limit_exceeded"),
        ("gateway", "HTTP 502"),
        ("failing", "error in the stream: server_error"),
        ("cut", "the stream ended without [DONE]"),
        ("broken", "connection broken (RemoteProtocolError)"),
        ("nonsense", "not the JSON of an OpenAI response"),
    ],
)
def test_each_failure_has_its_kind(fake, model, error):
    assert send(fake.url, model=model).error == error


def test_a_server_that_is_not_there_cannot_be_connected_to():
    with FakeServer() as server:
        url = server.url
    assert send(url).error == "cannot connect"


def test_what_was_asked_for_is_sent_and_nothing_else(fake):
    send(fake.url, ignore_eos=True, temperature=0.0, seed=7)
    assert fake.bodies[-1] == {
        "model": "good",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0.0,
        "seed": 7,
    }
    send(fake.url, stream=False, endpoint="completions")
    assert fake.bodies[-1] == {
        "model": "good",
        "prompt": "one two three",
        "max_tokens": 5,
        "stream": False,
    }


def test_a_prompt_may_have_its_own_number_of_tokens(fake):
    assert send(fake.url, prompt=Prompt(text="Hi", max_tokens=2)).num_output_tokens == 2
