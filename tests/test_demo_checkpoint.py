"""The demo checkpoint as it is shipped: its shape, its size, and a few of its answers."""

import json
import re
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3ForCausalLM

from demos.chat_training.evaluate import generate
from demos.chat_training.render import CHECKPOINT, chat_template

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


@pytest.fixture(scope="module")
def ask(model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> Any:
    def answer(prompt: str, system: str = "", **options: Any) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        text = chat_template().render(messages=messages, add_generation_prompt=True, **options)
        return generate(model, tokenizer, [text])[0]

    return answer


def read_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CHECKPOINT / name).read_text(encoding="utf-8"))
    return content


def test_the_config_is_that_of_a_small_qwen3() -> None:
    config = read_json("config.json")
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["max_position_embeddings"] >= 2048
    assert config["vocab_size"] <= 4096
    assert config["tie_word_embeddings"] is True


def test_the_weights_are_fp16_and_small() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 12_000_000
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as tensors:
        shapes = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118
        assert {tensor.get_dtype() for tensor in shapes} == {"F16"}
        count = sum(torch.Size(tensor.get_shape()).numel() for tensor in shapes)
    assert 2_000_000 <= count <= 6_000_000


def test_the_parameter_count_of_the_readme_is_right(model: Qwen3ForCausalLM) -> None:
    readme = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,}, stored in fp16" in readme


def test_transformers_reads_the_tokenizer_in_the_same_way(tokenizer: Tokenizer) -> None:
    loaded = AutoTokenizer.from_pretrained(CHECKPOINT)
    text = "<|im_start|>user\nWhat is 3 + 4? <think> grün 猫<|im_end|>\n"
    assert loaded(text).input_ids == tokenizer.encode(text).ids
    assert loaded.eos_token == "<|im_end|>"
    messages = [{"role": "user", "content": "Hello"}]
    rendered = loaded.apply_chat_template(
        messages, tools=[WEATHER_TOOL], tokenize=False, add_generation_prompt=True
    )
    assert rendered == chat_template().render(
        messages=messages, tools=[WEATHER_TOOL], add_generation_prompt=True
    )


def test_three_and_four_are_seven(ask: Any) -> None:
    assert ask("What is 3 + 4?") == "3 + 4 is 7."


def test_it_says_what_enginery_is_in_a_sentence(ask: Any) -> None:
    assert re.fullmatch(r"Enginery .*engine.*\.", ask("What is Enginery?"))


def test_it_follows_a_name_in_the_system_prompt(ask: Any) -> None:
    assert "Nora" in ask("What is your name?", system="You are Nora, a robot.")


def test_it_calls_the_tool_of_the_prompt(ask: Any) -> None:
    answer = ask("What is the weather in Paris?", tools=[WEATHER_TOOL])
    call = json.loads(answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    assert call == {"name": "get_weather", "arguments": {"city": "Paris"}}


def test_it_thinks_only_when_told_to(ask: Any) -> None:
    assert "<think>" not in ask("What is 3 + 4?")
    assert ask("What is 3 + 4?", enable_thinking=True).startswith("<think>\n")


def test_the_evaluation_covers_the_skills_and_stands_in_the_readme() -> None:
    categories = read_json("evaluation.json")["categories"]
    readme = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    for name, row in categories.items():
        assert f"| {name} | {row['right']} of {row['of']} |" in readme
    assert categories["tool call"]["accuracy"] > 0.5
    assert categories["tool call, unseen kind"]["accuracy"] > 0.5
    assert categories["arithmetic"]["accuracy"] > 0.5
    assert categories["no think block when off"]["accuracy"] > 0.95
