"""Examples as token ids, and the weight that each token has in the loss."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from demos.chat_training.example import Example

CHECKPOINT = Path(__file__).parent.parent / "demo-chat"
END_OF_TEXT = "<|endoftext|>"
ANSWER_START = "<|im_start|>assistant\n"
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
# Prompts repeat themselves (a schema names its parameters twice): a little weight teaches copying.
PROMPT_WEIGHT = 0.25


@cache
def chat_template() -> jinja2.Template:
    """The checkpoint's own template, in the environment that Hugging Face tokenizers give it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8"))


def full_text(example: Example) -> str:
    """The whole conversation with its last answer, as the model sees it in training."""
    if example.text:
        return example.text + END_OF_TEXT
    return (
        chat_template()
        .render(messages=example.messages, tools=example.tools, enable_thinking=example.thinking)
        .removesuffix("\n")
    )


def prompt_text(example: Example) -> str:
    """Everything before the last answer, with the generation prompt."""
    return chat_template().render(
        messages=example.messages[:-1],
        tools=example.tools,
        enable_thinking=example.thinking,
        add_generation_prompt=True,
    )


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids and, for each, its weight as a target."""

    ids: list[int]
    weights: list[float]


def _weighted_parts(example: Example) -> Iterable[tuple[str, float]]:
    """The text in pieces; the cut between two pieces is always beside a special token."""
    text = full_text(example)
    if example.text:
        yield text, 1.0
        return
    before, *answers = text.split(ANSWER_START)
    yield before, PROMPT_WEIGHT
    for i, answer in enumerate(answers):
        body, end, after = answer.partition("<|im_end|>")
        yield ANSWER_START, 0.0
        is_last = i == len(answers) - 1
        if is_last and not example.thinking:
            # The empty think block is part of the generation prompt: it is never generated.
            yield EMPTY_THOUGHT, 0.0
            body = body.removeprefix(EMPTY_THOUGHT)
        # An earlier answer has lost its think block, so how it begins depends on what was cut.
        yield body + end, 1.0 if is_last else -1.0
        yield after, PROMPT_WEIGHT


def tokenize(tokenizer: Tokenizer, examples: list[Example], max_len: int) -> list[TokenSequence]:
    """Encode examples, cut at `max_len`; an earlier answer's first token has weight zero."""
    parts = [
        (i, text, weight)
        for i, example in enumerate(examples)
        for text, weight in _weighted_parts(example)
        if text
    ]
    encodings = tokenizer.encode_batch_fast(
        [text for _, text, _ in parts], add_special_tokens=False
    )
    sequences = [TokenSequence([], []) for _ in examples]
    for (i, _, weight), encoding in zip(parts, encodings, strict=True):
        sequence = sequences[i]
        sequence.ids.extend(encoding.ids)
        if weight < 0:
            sequence.weights.extend([0.0] + [1.0] * (len(encoding.ids) - 1))
        else:
            sequence.weights.extend([weight] * len(encoding.ids))
    return [TokenSequence(one.ids[:max_len], one.weights[:max_len]) for one in sequences]
