"""Text completions over a scripted engine: prompts of all shapes, echo, logprobs, streams."""

import pytest

from tests.server.apps import tiny_engine, tiny_model, tiny_text
from tests.server.conversation import COMPLETIONS_PATH, complete, joined, stream
from tests.server.fakes import LOGPROB, scripted_engine

TOKENIZER = tiny_text().tokenizer
PROMPT = "The fox"
PROMPT_IDS = TOKENIZER.encode(PROMPT)


def model_saying(reply, **options):
    return tiny_model(tiny_engine(reply, **options))


def pieces(text):
    return [TOKENIZER.token_text(token_id)[0] for token_id in TOKENIZER.encode(text)]


def test_a_whole_answer_is_an_openai_completion():
    answer = complete({"prompt": PROMPT}, model_saying(" jumps"))
    num_tokens = len(TOKENIZER.encode(" jumps")) + 1
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["choices"] == [
        {"index": 0, "text": " jumps", "logprobs": None, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {
        "prompt_tokens": len(PROMPT_IDS),
        "completion_tokens": num_tokens,
        "total_tokens": len(PROMPT_IDS) + num_tokens,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_sixteen_tokens_are_the_default():
    answer = complete({"prompt": PROMPT}, model_saying("abc" * 20))
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_the_default_gives_way_to_a_prompt_that_leaves_less_room():
    engine = scripted_engine(tiny_text(), lambda _: [40] * 99, max_context=len(PROMPT_IDS) + 3)
    assert complete({"prompt": PROMPT}, tiny_model(engine))["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (PROMPT, [PROMPT_IDS]),
        ([PROMPT, "a"], [PROMPT_IDS, TOKENIZER.encode("a")]),
        (PROMPT_IDS, [PROMPT_IDS]),
        ([PROMPT_IDS, [5]], [PROMPT_IDS, [5]]),
        ("a<|im_end|>", [[*TOKENIZER.encode("a"), TOKENIZER.special_tokens["<|im_end|>"]]]),
    ],
)
def test_a_prompt_is_text_or_token_ids_or_a_list_of_either(prompt, expected):
    engine = tiny_engine("b")
    answer = complete({"prompt": prompt, "max_tokens": 1}, tiny_model(engine))
    assert [seq.token_ids[: seq.num_prompt_tokens] for seq in engine.added] == expected
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(expected)))
    assert answer["usage"]["prompt_tokens"] == sum(map(len, expected))


def test_each_prompt_has_its_choices_in_order():
    engine = scripted_engine(
        tiny_text(), lambda seq: [seq.token_ids[0], 40 + seq.sampling.seed], max_num_seqs=8
    )
    body = {"prompt": [[50], [60]], "n": 2, "seed": 1, "max_tokens": 2}
    texts = [choice["text"] for choice in complete(body, tiny_model(engine))["choices"]]
    assert texts == [tiny_text().decode(ids) for ids in ([50, 41], [50, 42], [60, 41], [60, 42])]


def test_streamed_chunks_carry_the_index_of_prompt_and_choice():
    engine = scripted_engine(tiny_text(), lambda seq: [seq.token_ids[0]], max_num_seqs=8)
    body = {"prompt": [[50], [60]], "n": 2, "stream_options": {"include_usage": True}}
    *events, last = stream(COMPLETIONS_PATH, body, tiny_model(engine))
    assert [joined(events, index) for index in range(4)] == [
        tiny_text().decode([token_id]) for token_id in (50, 50, 60, 60)
    ]
    assert {event["object"] for event in events} == {"text_completion"}
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    ends = [choice for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert sorted(choice["index"] for choice in ends) == [0, 1, 2, 3]


def test_echo_repeats_the_prompt_before_the_answer():
    body = {"prompt": PROMPT, "echo": True}
    assert complete(body, model_saying(" jumps"))["choices"][0]["text"] == "The fox jumps"
    assert joined(stream(COMPLETIONS_PATH, body, model_saying(" jumps"))) == "The fox jumps"
    by_ids = complete(body | {"prompt": [PROMPT_IDS, [5]]}, model_saying("!"))
    texts = [choice["text"] for choice in by_ids["choices"]]
    assert texts == [f"{PROMPT}!", f"{tiny_text().decode([5])}!"]


def test_a_stop_string_in_the_echo_stops_nothing():
    body = {"prompt": PROMPT, "echo": True, "stop": "fox"}
    assert complete(body, model_saying(" a fox"))["choices"][0]["text"] == "The fox a "


def test_logprobs_have_four_lists_of_one_length():
    body = {"prompt": PROMPT, "logprobs": 1}
    logprobs = complete(body, model_saying(" jumps"))["choices"][0]["logprobs"]
    tokens = pieces(" jumps")
    assert logprobs["tokens"] == tokens
    assert logprobs["token_logprobs"] == [LOGPROB] * len(tokens)
    assert logprobs["top_logprobs"] == [{token: LOGPROB} for token in tokens]
    assert logprobs["text_offset"] == offsets(tokens)


def offsets(tokens):
    return [len("".join(tokens[:index])) for index in range(len(tokens))]


def test_the_chosen_token_is_among_the_most_likely_ones():
    body = {"prompt": PROMPT, "logprobs": 0}
    logprobs = complete(body, model_saying("a"))["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] == [{"a": LOGPROB}]


def test_tokens_that_are_no_text_are_named_by_their_bytes():
    body = {"prompt": PROMPT, "logprobs": 0}
    logprobs = complete(body, model_saying("你"))["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["bytes:\\xe4", "bytes:\\xbd", "bytes:\\xa0"]
    assert logprobs["text_offset"] == [0, 0, 0]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_echo_with_logprobs_begins_with_those_of_the_prompt(streamed):
    body = {"prompt": PROMPT, "echo": True, "logprobs": 1}
    model = model_saying(" jumps")
    if streamed:
        lists = {"tokens": [], "token_logprobs": [], "text_offset": [], "top_logprobs": []}
        for event in stream(COMPLETIONS_PATH, body, model):
            for name, values in (event["choices"][0]["logprobs"] or {}).items():
                lists[name] += values
    else:
        lists = complete(body, model)["choices"][0]["logprobs"]
    tokens = pieces(PROMPT) + pieces(" jumps")
    assert lists["tokens"] == tokens
    assert lists["token_logprobs"] == [None] + [LOGPROB] * (len(tokens) - 1)
    assert lists["top_logprobs"][0] is None
    assert lists["text_offset"] == offsets(tokens)


def test_no_new_tokens_score_the_prompt_alone():
    body = {"prompt": PROMPT, "echo": True, "logprobs": 0, "max_tokens": 0}
    answer = complete(body, model_saying(" jumps"))
    choice = answer["choices"][0]
    assert choice["text"] == PROMPT
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == pieces(PROMPT)
    assert answer["usage"]["completion_tokens"] == 0


def test_the_same_seed_gives_each_prompt_the_same_sampling():
    engine = tiny_engine("a")
    complete({"prompt": ["a", "b"], "n": 2, "seed": 7}, tiny_model(engine))
    assert [seq.sampling.seed for seq in engine.added] == [7, 8, 7, 8]


def test_a_form_constrains_every_answer_of_its_own():
    model = tiny_model()
    complete({"prompt": ["a", "b"], "guided_choice": ["yes", "no"]}, model)
    first, second = (seq.constraint for seq in model.worker._engine.added)
    assert first is not None
    assert first is not second
