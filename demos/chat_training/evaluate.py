"""Measures the chat demo on held-out prompts: `python -m demos.chat_training.evaluate`."""

import argparse
import json
import logging
import re
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from demos.chat_training.corpus import SKILLS, draw
from demos.chat_training.example import Example
from demos.chat_training.grading import follows_think_rule, is_right, split_thought
from demos.chat_training.model import MAX_LEN
from demos.chat_training.render import CHECKPOINT, prompt_text

logger = logging.getLogger("demos.training")

EVALUATION_SEED = 99
MAX_NEW_TOKENS = 200
TABLE_START, TABLE_END = "<!-- evaluation -->", "<!-- /evaluation -->"
EVALUATED = (*(skill for skill in SKILLS if skill != "text"), "unseen tool")


@torch.inference_mode()
def generate(model: Qwen3ForCausalLM, tokenizer: Tokenizer, prompts: list[str]) -> list[str]:
    """Greedy answers to a batch of prompts, without the end token."""
    pad, end = model.config.pad_token_id, tokenizer.token_to_id("<|im_end|>")
    rows = [encoding.ids for encoding in tokenizer.encode_batch(prompts, add_special_tokens=False)]
    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    out = model.generate(  # type: ignore[misc]
        ids,
        attention_mask=mask,
        do_sample=False,
        temperature=None,
        top_k=None,
        top_p=None,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=end,
        pad_token_id=pad,
    )
    texts = [tokenizer.decode(row, skip_special_tokens=False) for row in out[:, length:].tolist()]
    return [re.split(r"<\|im_end\|>|<\|endoftext\|>", text)[0] for text in texts]


def held_out_examples(tokenizer: Tokenizer, skill: str, count: int) -> list[Example]:
    """Held-out examples of a skill, half of them with thinking, that leave room for an answer."""
    rng = Random(f"{EVALUATION_SEED} {skill}")
    examples: list[Example] = []
    while len(examples) < count:
        example = draw(rng, skill, held_out=True, thinking=len(examples) % 2 == 1)
        if len(tokenizer.encode(prompt_text(example)).ids) <= MAX_LEN - MAX_NEW_TOKENS:
            examples.append(example)
    return examples


def evaluate(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, count: int, batch_size: int = 25
) -> dict[str, Any]:
    """Right answers by category; `count` prompts of each skill. Misses are logged."""
    tally: dict[str, list[bool]] = defaultdict(list)
    thinking: dict[bool, list[bool]] = {False: [], True: []}
    for skill in EVALUATED:
        examples = held_out_examples(tokenizer, skill, count * 4 if skill == "chat" else count)
        examples.sort(key=lambda example: len(prompt_text(example)))
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            for example, text in zip(
                batch, generate(model, tokenizer, [prompt_text(e) for e in batch]), strict=True
            ):
                right = is_right(example, split_thought(text)[1])
                tally[example.category].append(right)
                thinking[example.thinking].append(follows_think_rule(example, text))
                if not right:
                    asked = example.messages[-2]["content"]
                    logger.info(
                        "%s: asked %r, wanted %r, got %r",
                        example.category,
                        asked,
                        example.expect,
                        text,
                    )
    tally["think block when on"], tally["no think block when off"] = thinking[True], thinking[False]
    return {
        name: {"right": sum(marks), "of": len(marks), "accuracy": round(sum(marks) / len(marks), 3)}
        for name, marks in sorted(tally.items())
    }


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write evaluation.json and the table of the folder's README."""
    content = {"seed": EVALUATION_SEED, "decoding": "greedy", "categories": report}
    (folder / "evaluation.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rows = [
        f"| {name} | {row['right']} of {row['of']} | {100 * row['accuracy']:.0f} % |"
        for name, row in report.items()
    ]
    table = "\n".join(["| category | right | share |", "| --- | --- | --- |", *rows])
    readme = folder / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    text = f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}"
    readme.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=50, help="prompts of each skill")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--write", action="store_true", help="write evaluation.json into the checkpoint"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    model = Qwen3ForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    report = evaluate(model, tokenizer, options.count)
    for name, row in report.items():
        logger.info(
            "%-28s %4d of %4d  %5.1f %%", name, row["right"], row["of"], 100 * row["accuracy"]
        )
    if options.write:
        write_report(options.checkpoint, report)


if __name__ == "__main__":
    main()
