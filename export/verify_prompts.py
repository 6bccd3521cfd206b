"""The fixed questions of the verification, in the chat format of the checkpoint."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

QUESTIONS = (
    "What is 3 + 4?",
    "What is the capital of France?",
    "What colour is the sky on a clear day?",
    "Hello! Who are you?",
    "Name three colours.",
    "What is the opposite of hot?",
    "How many legs does a spider have?",
    "Tell me a short story about a cat.",
    "Answer in one word: which animal says moo?",
    'Return a JSON object with the keys "name" and "age" for Maria, who is 30.',
    "Write a Python function that returns the larger of two numbers.",
    "What is 12 minus 5, and what is 6 times 7?",
    "Why does water boil at a lower temperature on a mountain?",
    "用一句话介绍北京。",
    "Traduis en français : good morning, my friend.",
    "Describe in two sentences how to make a cup of tea.",
)

_CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def read_prompts(
    engine_dir: Path, max_prompt_tokens: int, questions: tuple[str, ...] = QUESTIONS
) -> list[list[int]]:
    """The questions as token ids, each cut to its last `max_prompt_tokens`."""
    tokenizer = Tokenizer.from_file(str(engine_dir / "tokenizer.json"))
    template = engine_dir / "chat_template.jinja"
    source = template.read_text(encoding="utf-8") if template.is_file() else None
    texts = (_render(source, question) for question in questions)
    return [
        tokenizer.encode(text, add_special_tokens=False).ids[-max_prompt_tokens:] for text in texts
    ]


def _render(template: str | None, question: str) -> str:
    if template is None:
        return _CHATML.format(question)
    try:
        return (
            _environment()
            .from_string(template)
            .render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)
        )
    except TemplateError:  # one that wants more than a question
        return _CHATML.format(question)


def _environment() -> ImmutableSandboxedEnvironment:
    """What Hugging Face templates are written for; they cannot reach anything outside."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
