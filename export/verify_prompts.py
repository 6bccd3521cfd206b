"""The fixed prompt set of the verification: prose, code, numbers, other languages, a chat."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

MAX_PROMPT_TOKENS = 64

PROMPTS = (
    "The river rises in the hills to the north, runs through three small towns, and reaches the "
    "sea beside an old harbour. In spring the snow melts, the water is high, and the boats stay "
    "on land until the first warm week of May.",
    "Water boils at a lower temperature on a mountain than at the sea, because the air above it "
    "presses less. That is why rice takes longer to cook in a hut at three thousand metres.",
    "def moving_average(values, width):\n    total = sum(values[:width])\n    averages = [total]\n"
    "    for old, new in zip(values, values[width:]):\n        total += new - old\n"
    "        averages.append(total)\n    return averages\n",
    '{"order": 1042, "customer": {"name": "Maria", "city": "Porto"}, "items": [{"sku": "A-7", '
    '"count": 2, "price": 3.5}, {"sku": "B-1", "count": 1, "price": 12.0}], "paid": true}',
    "Question: A train leaves at 9:40 and arrives at 12:05. How long does it travel?\n"
    "Answer: From 9:40 to 12:00 it is 2 hours and 20 minutes, with 5 more 2 hours and 25 minutes.",
    "今天天气很好,我们一起去公园散步。湖边有很多人,孩子们在草地上放风筝,老人坐在树下聊天。",
    "Le boulanger ouvre sa boutique à six heures. Les premiers clients achètent du pain, puis "
    "viennent les enfants qui vont à l'école et demandent des croissants.",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nWhat is 3 + 4?"
    "<|im_end|>\n<|im_start|>assistant\n3 + 4 is 7.<|im_end|>\n<|im_start|>user\nAnd the capital "
    "of France?<|im_end|>\n<|im_start|>assistant\nThe capital of France is Paris.<|im_end|>\n",
)


def tokenize_prompts(tokenizer_file: Path, max_context: int) -> list[list[int]]:
    """The prompts in the checkpoint's own tokens, each cut to at most `MAX_PROMPT_TOKENS`."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    length = min(MAX_PROMPT_TOKENS, max_context)
    encoded = (tokenizer.encode(text, add_special_tokens=False).ids for text in PROMPTS)
    return [ids[:length] for ids in encoded if len(ids) > 1]
