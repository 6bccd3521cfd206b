"""A model that knows calls and reasoning, and says one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from server.registry import ChatModel
from server.text.processor import TextProcessor
from tests.server.fakes import Reply, scripted_engine, served_model, write_text_files

MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
# Calls, reasoning and tools as a template would tell of them.
TEMPLATE = (
    "{# <tool_call> </think> #}"
    "{%- if tools %}{{- '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.reasoning_content %}{{- '(' + m.reasoning_content + ')' }}{%- endif %}"
    "{{- m.content }}"
    "{%- for call in m.tool_calls or [] %}{{- call.function | tojson }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def speaking_model(folder: Path, reply: str | Reply, **options: Any) -> ChatModel:
    """The model; its text files are written to `folder`."""
    write_text_files(folder, TEMPLATE)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(MARKS)
    tokenizer.save(str(folder / "tokenizer.json"))
    text = TextProcessor.load(folder)
    return served_model(text, scripted_engine(text, reply, **options))


def prompts(model: ChatModel) -> list[str]:
    """The prompts that the model was given, as text."""
    added = model.worker._engine.added
    return [model.text.decode(seq.token_ids[: seq.num_prompt_tokens]) for seq in added]
