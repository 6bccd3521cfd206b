"""What a language model reads while its cache or its activations are measured, and how it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.manifest import ChatSpec
from export.answers import greedy_answers
from export.verify_prompts import read_prompts

# Questions, tasks, code, data, several languages; none that the verification asks.
CALIBRATION_TEXTS = (
    "Explain in three short paragraphs how a bicycle stays upright while it is being ridden.",
    "Write a polite letter to a landlord whose heating has been broken since Monday, 14 October.",
    "Translate into German: The library opens at nine, and on Sundays it stays closed.",
    "Summarize: In 1969 two people walked on the Moon while a third stayed in orbit. They brought "
    "back 21.5 kg of rock, left a mirror that is still used today to measure the distance to the "
    "Earth, and returned safely after eight days, three hours and eighteen minutes.",
    "What does this program print?\n\n```python\nclass Stack:\n    def __init__(self):\n        "
    "self._items = []\n\n    def push(self, item):\n        self._items.append(item)\n\n\n"
    'stack = Stack()\nfor i in range(10):\n    if i % 3 == 0:\n        stack.push(f"{i:02d}")\n'
    "print(stack._items)\n```",
    "SELECT customer, SUM(price * amount) AS total FROM orders WHERE day >= '2024-01-01' GROUP BY "
    "customer HAVING total > 1000 ORDER BY total DESC LIMIT 20; -- is there an index missing?",
    '{"tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": '
    '"object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]}\n'
    "Will it rain in Lisbon tomorrow?",
    "请把下面的句子翻译成英文,并解释其中的成语:他做事一向画蛇添足。",
    "日本の四季について、それぞれ一文で説明してください。",
    "Напиши короткое стихотворение про первый снег.",
    "اكتب جملة واحدة عن أهمية القراءة.",
    "¿Cuál es la diferencia entre «por» y «para»? Da dos ejemplos de cada uno.",
    "A train leaves at 08:15 and travels 342 km at 95 km/h. When does it arrive? Think step by "
    "step: 342 / 95 = 3.6, so it takes 3 h 36 min; 08:15 + 3:36 = 11:51.",
    "Let f(x) = x^2 - 3x + 2. Solve f(x) = 0, then compute \\int_0^1 f(x)\\,dx.",
    "<html><body><h1>Menu</h1><ul><li>Soup &ndash; 4,50 &euro;</li></ul></body></html>",
    "Aaaaaaaah!!! 😀😀😀 lol ... ok??? >>> 100% \t #hashtag @someone https://example.com/a?b=c&d=1",
)


def calibration_sequences(
    engine_dir: Path, spec: ChatSpec, texts: tuple[str, ...]
) -> list[list[int]]:
    """Each text as it stands, and as a question with what the model answers to it."""
    most = max(1, spec.max_context // 2)
    tokenizer = Tokenizer.from_file(str(engine_dir / "tokenizer.json"))
    plain = (tokenizer.encode(text, add_special_tokens=False).ids[:most] for text in texts)
    answers = greedy_answers(engine_dir, spec, read_prompts(engine_dir, most, texts))
    asked = (answer.prompt_ids + answer.answer_ids for answer in answers)
    return [ids[: spec.max_context] for ids in (*plain, *asked) if ids]


def prompt_inputs(spec: ChatSpec, ids: list[int]) -> dict[str, NDArray[Any]]:
    """What a graph in fp32 takes for a prompt, on an empty cache that is as long as it.

    All its tokens get logits, so that the last layer computes all of them.
    """
    size = len(ids)
    inputs: dict[str, NDArray[Any]] = {
        "input_ids": np.array([ids], np.int64),
        "seqlens_k": np.array([size - 1], np.int32),
        "total_sequence_length": np.array(size, np.int32),
        "logit_indices": np.arange(size),
    }
    empty = {
        state.input: np.zeros((1, state.heads, size, state.width), np.float32)
        for state in spec.states
    }
    return inputs | empty
