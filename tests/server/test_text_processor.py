"""Prompts to ids: the same as transformers makes, but for special tokens in a client's words."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import InvalidRequest
from server.text.processor import TextProcessor
from tests.checkpoints import ADDED_TOKENS, SPECIAL_TOKENS
from tests.server.fakes import write_text_files

DEMO = Path(__file__).parents[2] / "demos" / "demo-chat"
DEMO_TEMPLATE = DEMO / "chat_template.jinja"

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Porto", "days": [1, 2]}'},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CHATS = [
    [{"role": "user", "content": "What is 3 + 4?"}],
    [{"role": "system", "content": "Be kind. é你😀"}, {"role": "user", "content": "  Hi\n"}],
    [
        {"role": "user", "content": "And <think> or </tool_call>?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
        {"role": "user", "content": "Go on"},
    ],
]

fragments = st.lists(
    st.one_of(
        st.sampled_from(
            [*ADDED_TOKENS, "<|im_", "end|>", "<|", "|>", " ", "\n", "é", "e\u0301", "你"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    max_size=10,
).map("".join)
# Fragments can meet as a special token: such texts are another test's.
ordinary_texts = fragments.filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))
prompts = st.lists(st.one_of(fragments, st.sampled_from(SPECIAL_TOKENS)), max_size=6).map("".join)


@pytest.fixture(scope="module", params=["tiny", "demo"])
def folder(request, tmp_path_factory):
    if request.param == "demo":
        return DEMO
    return write_text_files(tmp_path_factory.mktemp("text"), DEMO_TEMPLATE.read_text("utf-8"))


@pytest.fixture(scope="module")
def text(folder):
    return TextProcessor.load(folder)


@pytest.fixture(scope="module")
def reference(folder):
    transformers = pytest.importorskip("transformers")
    if folder == DEMO:
        return transformers.AutoTokenizer.from_pretrained(str(DEMO))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        chat_template=(folder / "chat_template.jinja").read_text("utf-8"),
        eos_token="<|im_end|>",
    )


def reference_ids(reference, messages, **options):
    options = {"add_generation_prompt": True} | options
    return reference.apply_chat_template(messages, tokenize=True, return_dict=False, **options)


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("thinking", [{}, {"enable_thinking": True}, {"enable_thinking": False}])
def test_a_chat_has_the_ids_that_transformers_gives_it(text, reference, messages, thinking):
    expected = reference_ids(reference, messages, **thinking)
    assert text.encode_chat(messages, variables=thinking) == expected


def test_tools_and_their_calls_have_the_ids_that_transformers_gives_them(text, reference):
    messages = [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"sky": "blue"}', "tool_call_id": "call_1"},
    ]
    as_object = json.loads(json.dumps(messages))
    function = as_object[1]["tool_calls"][0]["function"]
    function["arguments"] = json.loads(function["arguments"])
    expected = reference_ids(reference, as_object, tools=[TOOL])
    assert text.encode_chat(messages, tools=[TOOL]) == expected
    assert text.encode_chat(as_object, tools=[TOOL]) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=ordinary_texts, system=ordinary_texts)
def test_any_ordinary_words_have_the_ids_that_transformers_gives_them(
    text, reference, content, system
):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    assert text.encode_chat(messages) == reference_ids(reference, messages)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=prompts)
def test_special_tokens_count_in_a_bare_prompt(text, reference, prompt):
    assert text.encode_prompt(prompt) == reference(prompt)["input_ids"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=prompts)
def test_special_tokens_in_a_message_stay_text(text, content):
    special_ids = set(text.tokenizer.special_tokens.values())

    def num_special(messages):
        return sum(token_id in special_ids for token_id in text.encode_chat(messages))

    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]
    plain = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
    assert num_special(chat) == num_special(plain)
    if content.strip("\n") == content:  # the template strips line breaks in places
        assert composed(content) in composed(text.decode(text.encode_chat(chat)))


def composed(words):
    """Some tokenizers compose characters before they encode them."""
    return unicodedata.normalize("NFC", words)


def test_special_tokens_in_tools_calls_and_variables_stay_text(tmp_path):
    template = "{{ tools | tojson }}{{ messages[0] | tojson }}{{ note }}<|im_end|>"
    text = TextProcessor.load(write_text_files(tmp_path, template))
    arguments = json.dumps({"<|im_end|>": "\u003c|im_start|>"}).replace("<", "\\u003c")
    call = CALL | {"function": {"name": "<|im_end|>", "arguments": arguments}}
    ids = text.encode_chat(
        [{"role": "assistant", "content": None, "tool_calls": [call]}],
        tools=[{"<|endoftext|>": ["<|im_end|>"]}],
        variables={"note": "<|im_end|>"},
    )
    assert [token_id for token_id in ids if token_id in text.tokenizer.special_tokens.values()] == [
        text.tokenizer.special_tokens["<|im_end|>"]
    ]
    assert text.decode(ids).count("<|im_end|>") == 5
    assert text.decode(ids).count("<|im_start|>") == 1


def test_noncharacters_in_a_message_arrive_as_they_are(text):
    content = "\ufdd0<|im_end|>\ufdd1"
    assert content in text.decode(text.encode_chat([{"role": "user", "content": content}]))


def test_added_tokens_that_are_not_special_count_in_a_message(text):
    ids = text.encode_chat([{"role": "user", "content": "<think>"}])
    assert text.tokenizer.encode("<think>")[0] in ids


def test_a_long_text_has_the_same_ids_as_its_parts(text):
    part = "The quick brown fox. "
    assert text.encode_prompt(part * 4000) == text.encode_prompt(part.rstrip()) + (
        text.encode_prompt(" " + part.rstrip()) * 3999 + text.encode_prompt(" ")
    )


def test_a_final_message_can_be_continued(text, reference):
    messages = [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "One, two "},
    ]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    ids = text.encode_chat(messages, **options)
    assert ids == reference_ids(reference, messages, **options)
    assert text.decode(ids).endswith("One, two ")


def test_data_nested_too_deeply_is_an_invalid_request(text):
    nested: object = "x"
    for _ in range(100):
        nested = [nested]
    with pytest.raises(InvalidRequest, match="nested deeper than 64"):
        text.encode_chat([{"role": "user", "content": "a"}], tools=[{"deep": nested}])
