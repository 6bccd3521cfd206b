"""Templates of every generation of Qwen render byte for byte as transformers renders them."""

from __future__ import annotations

import copy
import functools
import json

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from engines.errors import InvalidRequest
from export.chatml import CHATML_TEMPLATE
from server.text.chat_template import ChatTemplate
from server.text.processor import TextProcessor
from tests.checkpoints import build_tokenizer
from tests.server import qwen_templates
from tests.server.fakes import write_text_files

TEMPLATES = {
    "Qwen": CHATML_TEMPLATE,
    "Qwen1.5": qwen_templates.QWEN1_5,
    "Qwen2.5": qwen_templates.QWEN2_5,
    "Qwen3": qwen_templates.QWEN3,
    "Qwen3-2507-Thinking": qwen_templates.QWEN3_2507_THINKING,
    "Qwen3-Coder": qwen_templates.QWEN3_CODER,
    "Qwen3.5": qwen_templates.QWEN3_5,
}
SPECIAL = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": " Tells the weather <of> a \"city\" & 'more', größer ",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "A city", "enum": ["Porto", "Zürich"]},
                "days": {"type": ["integer", "null"], "default": 1},
            },
            "required": ["city"],
        },
        "strict": False,
    },
}
USER = {"role": "user", "content": "  What is 3 < 4 & 'é' {{ x }}?\n"}
SYSTEM = {"role": "system", "content": "Be\n\nbrief. "}
ANSWER = {"role": "assistant", "content": "\n\nIt is true.\n"}
THOUGHT = {"role": "assistant", "content": "<think>\nLet me see.\n</think>\n\nTrue."}
REASONED = {"role": "assistant", "content": "True.", "reasoning_content": "\nI know.\n"}


def call(content="", **arguments):
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {"id": "a", "type": "function", "function": function},
            {"id": "b", "type": "function", "function": {"name": "none", "arguments": {}}},
        ],
    }


CALLS = [
    USER,
    call("Let me look.", city="Zürich", days=2, deep={"a": [1, None, "<é>"], "b": True}),
    {"role": "tool", "content": '{"sky": "blue"}', "tool_call_id": "a"},
    {"role": "tool", "content": "none", "tool_call_id": "b"},
]
CONVERSATIONS = {
    "a question": [USER],
    "a system message": [SYSTEM, USER],
    "history": [SYSTEM, USER, ANSWER, USER],
    "thoughts": [USER, THOUGHT, USER, REASONED, USER],
    "an answer at the end": [USER, REASONED],
    "calls": CALLS,
    "calls answered": [SYSTEM, *CALLS, REASONED, USER],
    "a call without words": [USER, call(city=""), CALLS[2], THOUGHT],
    "a pasted response": [
        USER,
        {"role": "user", "content": "<tool_response>\nx\n</tool_response>"},
    ],
}


@functools.cache
def reference_tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), **SPECIAL)


def reference(template, messages, **options):
    return reference_tokenizer().apply_chat_template(
        copy.deepcopy(messages), chat_template=template, tokenize=False, **options
    )


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, [WEATHER]], ids=["no tools", "tools"])
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_a_conversation_is_rendered_as_transformers_renders_it(
    name, conversation, tools, variables
):
    template, messages = TEMPLATES[name], CONVERSATIONS[conversation]
    ours = ChatTemplate(template, SPECIAL)
    for opens in (True, False):
        expected = reference(
            template, messages, tools=tools, add_generation_prompt=opens, **variables
        )
        found = ours.render(messages, tools=tools, add_generation_prompt=opens, variables=variables)
        assert found == expected


TEXTS = st.lists(
    st.sampled_from(
        ["word", " é<&>\"'", "\n\n", "{{ x }}", "<think>", "</think>", "<tool_call>", "日本", "\t"]
    ),
    max_size=4,
).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
ANSWERS = st.one_of(
    st.builds(lambda text: [{"role": "assistant", "content": text}], TEXTS),
    st.builds(
        lambda thought, text: [
            {"role": "assistant", "content": text, "reasoning_content": thought}
        ],
        TEXTS,
        TEXTS,
    ),
    st.builds(
        lambda text, city, deep, result: [
            call(text, city=city, deep=deep),
            {"role": "tool", "content": result, "tool_call_id": "a"},
        ],
        TEXTS,
        TEXTS,
        VALUES,
        TEXTS,
    ),
)


@st.composite
def conversations(draw):
    messages = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [{"role": "user", "content": draw(TEXTS)}, *draw(ANSWERS)]
    return messages


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25, deadline=None)
@given(
    messages=conversations(),
    tools=st.sampled_from([None, [WEATHER]]),
    opens=st.booleans(),
    variables=st.sampled_from([{}, {"enable_thinking": False}]),
)
def test_random_conversations_are_rendered_as_transformers_renders_them(
    name, messages, tools, opens, variables
):
    template = TEMPLATES[name]
    found = ChatTemplate(template, SPECIAL).render(
        messages, tools=tools, add_generation_prompt=opens, variables=variables
    )
    options = {"tools": tools, "add_generation_prompt": opens, **variables}
    assert found == reference(template, messages, **options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_encoded_is_what_was_rendered(name, tmp_path):
    """The whole text layer, for messages as clients send them: arguments as strings, no content."""
    template, messages = TEMPLATES[name], CONVERSATIONS["calls answered"]
    sent = copy.deepcopy(messages)
    for message in sent:
        for called in message.get("tool_calls", ()):
            called["function"]["arguments"] = json.dumps(called["function"]["arguments"])
    processor = TextProcessor.load(write_text_files(tmp_path, template))
    expected = reference(template, messages, tools=[WEATHER], add_generation_prompt=True)
    assert processor.decode(processor.encode_chat(sent, tools=[WEATHER])) == expected


@pytest.mark.parametrize(
    "messages",
    [
        [USER, SYSTEM],
        [{"role": "critic", "content": "x"}],
        [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": 7}],
    ],
)
def test_what_a_template_refuses_is_refused_in_its_words(messages):
    with pytest.raises(jinja2.TemplateError) as theirs:
        reference(qwen_templates.QWEN3_5, messages)
    with pytest.raises(InvalidRequest, match=str(theirs.value)):
        ChatTemplate(qwen_templates.QWEN3_5, SPECIAL).render(messages)
