"""Chat completions over a scripted engine: whole and streamed answers, and what they hold."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.apps import tiny_engine, tiny_model, tiny_text
from tests.server.conversation import (
    CHAT_PATH,
    converse,
    joined,
    post,
    said,
    stream,
)
from tests.server.fakes import LOGPROB, scripted_engine, served_model, write_text_files

TOKENIZER = tiny_text().tokenizer


def model_saying(reply, **options):
    return tiny_model(tiny_engine(reply, **options))


def num_tokens(text):
    return len(TOKENIZER.encode(text)) + 1  # the end-of-sequence token counts


def test_a_whole_answer_is_an_openai_chat_completion():
    answer = converse({}, model_saying("Hello you"))
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"].startswith("fp_")
    assert abs(answer["created"] - 1_700_000_000) < 2**32
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello you", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    prompt = tiny_text().encode_chat([{"role": "user", "content": "Hi"}])
    assert answer["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": num_tokens("Hello you"),
        "total_tokens": len(prompt) + num_tokens("Hello you"),
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_a_stream_has_the_role_first_then_text_then_a_reason_and_an_end():
    events = stream(CHAT_PATH, said({}), model_saying("Hello you"))
    first, *middle, last = (event["choices"][0] for event in events)
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert all(set(choice["delta"]) == {"content"} for choice in middle)
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")
    assert all(choice["finish_reason"] is None for choice in [first, *middle])
    assert joined(events) == "Hello you"
    shared = ("id", "object", "created", "model", "system_fingerprint")
    assert len({tuple(event[name] for name in shared) for event in events}) == 1
    assert events[0]["object"] == "chat.completion.chunk"
    assert all("usage" not in event for event in events)


def test_usage_comes_last_and_without_choices_when_it_is_asked_for():
    body = said({"stream_options": {"include_usage": True}})
    *events, last = stream(CHAT_PATH, body, model_saying("Hello you"))
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"] == converse({}, model_saying("Hello you"))["usage"]


@settings(deadline=None, max_examples=25)
@given(
    reply=st.text(st.sampled_from("abc é你😀<"), min_size=1, max_size=12),
    stops=st.lists(st.text(st.sampled_from("abc é你"), min_size=1, max_size=3), max_size=2),
    max_tokens=st.integers(1, 40),
    n=st.integers(1, 3),
)
def test_streamed_or_not_the_text_the_reason_and_the_usage_are_the_same(
    reply, stops, max_tokens, n
):
    body = said({"stop": stops, "max_tokens": max_tokens, "n": n})
    options = {"stream": True, "stream_options": {"include_usage": True}}
    whole, streamed = post(CHAT_PATH, body, body | options, model=model_saying(reply))
    events = [json.loads(line[6:]) for line in streamed.text.split("\n\n")[:-2]]
    assert events[-1]["usage"] == whole.json()["usage"]
    reasons = {
        choice["index"]: choice["finish_reason"]
        for event in events
        for choice in event["choices"]
        if choice["finish_reason"]
    }
    for choice in whole.json()["choices"]:
        content = choice["message"]["content"]
        assert joined(events, choice["index"]) == content
        assert reasons[choice["index"]] == choice["finish_reason"]
        assert not any(stop in content for stop in stops)


def test_a_stop_string_that_is_split_across_tokens_never_leaks():
    reply = "one <end> two"
    assert len(TOKENIZER.encode("<end>")) > 1
    events = stream(CHAT_PATH, said({"stop": ["<end>"]}), model_saying(reply))
    assert joined(events) == "one "
    assert "<" not in "".join(json.dumps(event["choices"]) for event in events)
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_tokens_count_up_to_the_one_that_completes_the_stop_string():
    usage = converse({"stop": "<end>"}, model_saying("one <end> two"))["usage"]
    assert usage["completion_tokens"] == len(TOKENIZER.encode("one <end>"))


def test_what_looked_like_a_stop_string_comes_in_the_end():
    events = stream(CHAT_PATH, said({"stop": "<end>"}), model_saying("one <en"))
    assert joined(events) == "one <en"


def test_no_delta_holds_half_a_character():
    events = stream(CHAT_PATH, said({}), model_saying("é你😀"))
    assert joined(events) == "é你😀"
    assert not any("\ufffd" in event["choices"][0]["delta"].get("content", "") for event in events)


def test_an_answer_that_is_cut_off_has_the_reason_length():
    answer = converse({"max_tokens": 2}, model_saying("abcdef"))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_without_a_limit_an_answer_may_fill_the_context():
    engine = scripted_engine(tiny_text(), lambda _: [40] * 1000, max_context=64)
    answer = converse({}, tiny_model(engine))
    assert answer["usage"]["total_tokens"] == 64
    assert answer["choices"][0]["finish_reason"] == "length"


def test_max_completion_tokens_goes_before_max_tokens():
    body = {"max_completion_tokens": 1, "max_tokens": 5}
    assert converse(body, model_saying("abcdef"))["usage"]["completion_tokens"] == 1


def test_choices_get_the_seeds_that_follow():
    engine = tiny_engine("ab")
    answer = converse({"n": 3, "seed": -1}, tiny_model(engine))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [seq.sampling.seed for seq in engine.added] == [2**64 - 1, 0, 1]
    prompt_tokens = engine.added[0].num_prompt_tokens
    assert answer["usage"]["prompt_tokens"] == prompt_tokens, "the prompt counts once"
    assert answer["usage"]["completion_tokens"] == 3 * num_tokens("ab")


def test_each_streamed_choice_begins_with_its_role():
    engine = tiny_engine("abc", max_num_seqs=1)
    events = stream(CHAT_PATH, said({"n": 2}), tiny_model(engine))
    for index in range(2):
        own = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert own[-1]["finish_reason"] == "stop"
        assert joined(events, index) == "abc"


def test_logprobs_name_each_token_with_its_bytes():
    body = {"logprobs": True, "top_logprobs": 2}
    answer = converse(body, model_saying("a你"))
    content = answer["choices"][0]["logprobs"]["content"]
    assert answer["choices"][0]["logprobs"]["refusal"] is None
    assert [token["token"] for token in content] == ["a", "\\xe4", "\\xbd", "\\xa0"]
    assert b"".join(bytes(token["bytes"]) for token in content) == "a你".encode()
    assert content[0]["logprob"] == LOGPROB
    assert [len(token["top_logprobs"]) for token in content] == [2, 2, 2, 2]
    assert content[0]["top_logprobs"][0] == {"token": "a", "logprob": LOGPROB, "bytes": [97]}


def test_streamed_logprobs_are_those_of_the_whole_answer():
    body = {"logprobs": True, "top_logprobs": 1, "stop": "<end>"}
    whole = converse(body, model_saying("ab <e你 <end> c"))
    events = stream(CHAT_PATH, said(body), model_saying("ab <e你 <end> c"))
    streamed = []
    for event in events:
        logprobs = event["choices"][0]["logprobs"]
        streamed += logprobs["content"] if logprobs else []
    assert streamed == whole["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in streamed) == "ab <e你 ".encode()


def test_logprobs_alone_have_no_alternatives():
    content = converse({"logprobs": True}, model_saying("a"))["choices"][0]["logprobs"]["content"]
    assert content == [{"token": "a", "logprob": LOGPROB, "bytes": [97], "top_logprobs": []}]


def test_sampling_fields_reach_the_engine():
    engine = tiny_engine("a")
    sent = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "repetition_penalty": 1.1,
    }
    extra = {"logit_bias": {"42": -100}, "stop_token_ids": [7], "ignore_eos": True, "seed": 3}
    converse(sent | extra | {"max_tokens": 1}, tiny_model(engine))
    sampling = engine.added[0].sampling
    assert {name: getattr(sampling, name) for name in sent} == sent
    assert sampling.logit_bias == {42: -100}
    assert sampling.stop_token_ids == {7}
    assert sampling.ignore_eos
    assert sampling.seed == 3


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, (0.25, 7, 1.0)),
        ({"temperature": 1}, (1.0, 7, 1.0)),
        ({"top_k": -1, "top_p": 0}, (0.25, 0, 1e-9)),
        ({"temperature": None, "top_k": None}, (0.25, 7, 1.0)),
    ],
)
def test_what_a_request_leaves_out_comes_from_the_checkpoint(tmp_path, sent, expected):
    config = '{"temperature": 0.25, "top_k": 7}'
    text = type(tiny_text()).load(write_text_files(tmp_path, generation_config=config))
    engine = scripted_engine(text, "a")
    converse(sent, served_model(text, engine))
    sampling = engine.added[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == expected


def test_tokens_after_an_ignored_end_of_sequence_are_part_of_the_answer():
    eos = TOKENIZER.special_tokens["<|im_end|>"]
    engine = scripted_engine(tiny_text(), lambda _: [40, eos, 41])
    body = {"ignore_eos": True, "max_tokens": 3}
    shown = converse(body | {"skip_special_tokens": False}, tiny_model(engine))
    hidden = converse(body, tiny_model(engine))
    first, last = (TOKENIZER.token_text(token_id)[0] for token_id in (40, 41))
    assert shown["choices"][0]["message"]["content"] == f"{first}<|im_end|>{last}"
    assert hidden["choices"][0]["message"]["content"] == f"{first}{last}"


def test_fields_that_no_one_knows_are_ignored():
    extra = {"user": "me", "store": False, "metadata": {"a": "b"}, "new_in_2030": [1]}
    neutral = {"response_format": {"type": "text"}, "functions": [], "audio": None, "tools": None}
    assert converse(extra | neutral)["choices"]
