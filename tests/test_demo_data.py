"""The demo's training text: the split, the tools, the think rules and the tokenizer."""

import json
import re
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer

from demos.chat_training.corpus import SKILLS, draw, training_examples
from demos.chat_training.example import Example, is_held_out
from demos.chat_training.grading import follows_think_rule, is_right, split_thought
from demos.chat_training.render import (
    CHECKPOINT,
    END_OF_TEXT,
    chat_template,
    full_text,
    prompt_text,
    tokenize,
)
from demos.chat_training.tokenizer import MARKER_TOKENS, SPECIAL_TOKENS

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
PYTHON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


@pytest.fixture(scope="module")
def training_set() -> list[Example]:
    return training_examples(Random(3), 1200)


@pytest.fixture(scope="module")
def chats(training_set: list[Example]) -> list[Example]:
    return [example for example in training_set if not example.text]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def render(messages: list[dict[str, Any]], **options: Any) -> str:
    return chat_template().render(messages=messages, **options)


def test_no_prompt_of_the_training_set_is_held_out(training_set: list[Example]) -> None:
    keys = [key for example in training_set for key in example.keys]
    assert len(keys) > 2000
    assert not [key for key in keys if is_held_out(key)]


def test_no_tool_of_the_training_set_is_held_out(training_set: list[Example]) -> None:
    names = [tool["function"]["name"] for example in training_set for tool in example.tools]
    assert len(set(names)) > 300
    assert not [name for name in names if is_held_out(name)]


@pytest.mark.parametrize("skill", [skill for skill in SKILLS if skill != "text"])
def test_what_evaluation_asks_is_held_out(skill: str) -> None:
    for seed in range(8):
        example = draw(Random(seed), skill, held_out=True)
        calls = [call for message in example.messages for call in message.get("tool_calls", [])]
        if skill == "tool dialogue":
            calls = calls[-1:]
        if calls:
            assert all(is_held_out(call["function"]["name"]) for call in calls)
        else:
            assert is_held_out(example.keys[-1])


def test_unseen_kinds_of_tools_are_not_in_the_training_set(training_set: list[Example]) -> None:
    described = {
        tool["function"].get("description") for example in training_set for tool in example.tools
    }
    for seed in range(20):
        example = draw(Random(seed), "unseen tool", held_out=True)
        name = example.messages[-1]["tool_calls"][0]["function"]["name"]
        (tool,) = [one for one in example.tools if one["function"]["name"] == name]
        assert tool["function"].get("description") not in described - {None}


def test_the_same_seed_gives_the_same_text() -> None:
    first, second = (training_examples(Random(5), 60) for _ in range(2))
    assert [full_text(example) for example in first] == [full_text(example) for example in second]


def test_tool_calls_fit_the_schema_of_an_offered_tool(chats: list[Example]) -> None:
    called = 0
    for example in chats:
        schemas = {
            tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools
        }
        for block in re.findall(
            r"<tool_call>\n(\{\"name\": \".*?)\n</tool_call>", full_text(example)
        ):
            call = json.loads(block)
            schema = schemas[call["name"]]
            assert set(schema.get("required", [])) <= set(call["arguments"])
            for key, value in call["arguments"].items():
                described = schema["properties"][key]
                assert isinstance(value, PYTHON_TYPES[described["type"]])
                assert value in described.get("enum", [value])
            called += 1
    assert called > 300


def test_arguments_of_a_call_stand_in_the_request(chats: list[Example]) -> None:
    for example in chats:
        if example.grade != "call":
            continue
        request = example.messages[-2]["content"].lower()
        for call in example.messages[-1]["tool_calls"]:
            for value in call["function"]["arguments"].values():
                said = {True: ("true", "on"), False: ("false", "off")}
                spoken = said[value] if isinstance(value, bool) else (str(value).lower(),)
                assert any(one in request for one in spoken)


def test_offered_tools_are_rendered_as_json_lines(chats: list[Example]) -> None:
    example = next(example for example in chats if len(example.tools) > 1)
    block = full_text(example).split("<tools>\n")[1].split("\n</tools>")[0]
    assert [json.loads(line) for line in block.split("\n")] == list(example.tools)


def test_calculations_in_the_text_are_right(chats: list[Example]) -> None:
    operations = {
        "+": int.__add__,
        "-": int.__sub__,
        "*": int.__mul__,
        "/": int.__floordiv__,
    }
    answers = [str(message["content"]) for example in chats for message in example.messages]
    found = [
        match
        for text in answers
        if (match := re.fullmatch(r"(\d+) ([-+*/]) (\d+) is (\d+)\.", text))
    ]
    assert len(found) > 100
    for match in found:
        left, sign, right, result = match.groups()
        assert operations[sign](int(left), int(right)) == int(result)


def test_the_prompt_is_the_beginning_of_the_whole_text(chats: list[Example]) -> None:
    for example in chats[:400]:
        assert full_text(example).startswith(prompt_text(example))


def test_think_blocks_are_there_only_when_thinking_is_on(chats: list[Example]) -> None:
    for example in chats[:400]:
        answer = full_text(example).removeprefix(prompt_text(example)).removesuffix("<|im_end|>")
        assert follows_think_rule(example, answer)
        assert is_right(example, split_thought(answer)[1])
        assert prompt_text(example).endswith(EMPTY_THOUGHT) is not example.thinking


def test_a_wrong_answer_is_graded_as_wrong() -> None:
    sum_example = draw(Random(1), "chat", held_out=True)
    call_example = draw(Random(1), "call", held_out=True)
    assert not is_right(sum_example, "Bananas.")
    assert not is_right(call_example, "None of my tools can do that.")
    assert not is_right(call_example, '<tool_call>\n{"name": "broken\n</tool_call>')


def test_thoughts_before_the_last_question_are_cut_from_the_history() -> None:
    text = render(
        [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "one", "reasoning_content": "old thought"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": "<think>\nnew thought\n</think>\n\ntwo"},
        ]
    )
    assert "old thought" not in text
    assert text.endswith("<|im_start|>assistant\n<think>\nnew thought\n</think>\n\ntwo<|im_end|>\n")


def test_a_question_that_is_asked_again_counts_as_the_last() -> None:
    text = render(
        [
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "one", "reasoning_content": "old thought"},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "two", "reasoning_content": "new thought"},
        ]
    )
    assert "old thought" not in text
    assert "new thought" in text


def test_thoughts_between_a_call_and_its_response_are_kept() -> None:
    call = {"function": {"name": "clock", "arguments": '{"city": "Oslo"}'}}
    text = render(
        [
            {"role": "user", "content": "time?"},
            {"role": "assistant", "content": "", "reasoning_content": "ask", "tool_calls": [call]},
            {"role": "tool", "content": "12:00"},
            {"role": "tool", "content": "noon"},
        ],
        add_generation_prompt=True,
        enable_thinking=True,
    )
    assert "<think>\nask\n</think>\n\n<tool_call>\n" in text
    assert '{"name": "clock", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>' in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\n12:00\n</tool_response>\n<tool_response>\nnoon\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_takes_parts_and_developers_and_messages_without_content() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]
    text = render(
        [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None},
        ]
    )
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello there")


def test_the_tokenizer_is_small_and_has_the_tokens_of_qwen(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() <= 4096
    added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    assert set(added) == {*SPECIAL_TOKENS, *MARKER_TOKENS}
    for name, token in added.items():
        assert token.special is (name in SPECIAL_TOKENS)
        assert (token.lstrip, token.rstrip, token.single_word) == (False, False, False)
        assert token.normalized is False


@pytest.mark.parametrize(
    "text", ["What is 3 + 4?", "grün, 猫 and 🦊", "a\n\n  b\t c ", '{"name": "x", "n": 12.50}', "é́"]
)
def test_the_tokenizer_round_trips(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_tokenizer_cuts_numbers_into_digits(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]


def test_an_example_in_pieces_has_the_tokens_of_the_whole(
    tokenizer: Tokenizer, training_set: list[Example]
) -> None:
    sequences = tokenize(tokenizer, training_set[:300], max_len=10**6)
    for example, sequence in zip(training_set, sequences, strict=False):
        assert sequence.ids == tokenizer.encode(full_text(example), add_special_tokens=False).ids
        assert len(sequence.ids) == len(sequence.weights)


def test_training_weighs_answers_and_never_the_empty_think_block(
    tokenizer: Tokenizer, chats: list[Example]
) -> None:
    example = next(one for one in chats if not one.thinking and len(one.messages) == 2)
    (sequence,) = tokenize(tokenizer, [example], max_len=10**6)
    full = [id_ for id_, weight in zip(sequence.ids, sequence.weights, strict=True) if weight == 1]
    answer = full_text(example).removeprefix(prompt_text(example))
    assert tokenizer.decode(full, skip_special_tokens=False) == answer


def test_long_conversations_reach_the_last_position(tokenizer: Tokenizer) -> None:
    examples = [draw(Random(seed), "long") for seed in range(12)]
    lengths = [len(sequence.ids) for sequence in tokenize(tokenizer, examples, max_len=2048)]
    assert max(lengths) == 2048
    assert min(lengths) > 100


def test_plain_text_ends_with_the_end_token(training_set: list[Example]) -> None:
    texts = [full_text(example) for example in training_set if example.text]
    assert texts
    for text in texts:
        assert text.endswith(END_OF_TEXT)
        assert text.count("<|") == 1
