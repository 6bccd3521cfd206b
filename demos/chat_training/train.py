"""Trains the chat demo: `python -m demos.chat_training.train --state-dir DIR`, resumable."""

import argparse
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import Qwen3ForCausalLM

from demos.chat_training.corpus import training_examples
from demos.chat_training.model import MAX_LEN, create_model, write_checkpoint
from demos.chat_training.render import CHECKPOINT, END_OF_TEXT, TokenSequence, full_text, tokenize
from demos.chat_training.tokenizer import train_tokenizer
from demos.training.muon import MuonAdamW
from demos.training.run import (
    Progress,
    TrainingRun,
    keep_freed_memory,
    learning_rate,
    stop_on_sigterm,
)

logger = logging.getLogger("demos.training")

SEED = 7
POOL_EXAMPLES = 3000
TOKENIZER_EXAMPLES = 20_000
PEAK_LEARNING_RATE = 4e-3
WARMUP_STEPS = 60
PROMPT_TOKEN_SHARE = 0.25


@dataclass
class ChatProgress(Progress):
    """Also which pool of examples the run is at, and where in it."""

    pool: int = 0
    batch: int = 0
    num_tokens: int = 0


def load_tokenizer(state_dir: Path) -> Tokenizer:
    """The tokenizer of this run, trained at the first call."""
    path = state_dir / "tokenizer.json"
    if not path.exists():
        texts = map(
            full_text, training_examples(Random(f"{SEED} tokenizer"), TOKENIZER_EXAMPLES, 0.01)
        )
        train_tokenizer(texts).save(str(path))
    return Tokenizer.from_file(str(path))


def draw_batches(
    tokenizer: Tokenizer, pool: int, done: float, batch_tokens: int
) -> list[list[TokenSequence]]:
    """One pool of fresh examples in batches of like length; more of them long towards the end."""
    rng = Random(f"{SEED} {pool}")
    sequences = tokenize(
        tokenizer, training_examples(rng, POOL_EXAMPLES, 0.015 + 0.03 * done), MAX_LEN
    )
    sequences.sort(key=lambda sequence: len(sequence.ids))
    batches: list[list[TokenSequence]] = [[]]
    for sequence in sequences:
        # Sorted by length, so the newest sequence is the longest and sets the padded size.
        if (len(batches[-1]) + 1) * len(sequence.ids) > batch_tokens and batches[-1]:
            batches.append([])
        batches[-1].append(sequence)
    rng.shuffle(batches)
    return batches


def to_tensors(batch: list[TokenSequence], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights padded on the right, where a causal model does not see them."""
    length = math.ceil(max(len(sequence.ids) for sequence in batch) / 8) * 8
    ids = torch.full((len(batch), length), pad_id)
    weights = torch.zeros(len(batch), length)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        weights[row, : len(sequence.ids)] = torch.tensor(sequence.weights)
    return ids, weights  # [B, S], [B, S]


def weighted_loss(
    model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Mean cross entropy of the next token, weighted; the head runs only where a weight is."""
    # A quarter of the prompt's tokens stand for all: the head is a large part of a small model.
    dropped = (weights < 1) & (torch.rand_like(weights) > PROMPT_TOKEN_SHARE)
    weights = weights.masked_fill(dropped, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state  # [B, S, H]
        targets, target_weights = ids[:, 1:], weights[:, 1:]
        wanted = target_weights > 0
        logits = model.lm_head(hidden[:, :-1][wanted])  # [T, vocab_size]
    losses = F.cross_entropy(logits.float(), targets[wanted], reduction="none")  # [T]
    return (losses * target_weights[wanted]).sum() / target_weights.sum()


def create_optimizer(model: Qwen3ForCausalLM) -> MuonAdamW:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return MuonAdamW(matrices, others, PEAK_LEARNING_RATE, weight_decay=0.05)


class ChatTraining:
    """One training run on disk, under `state_dir`."""

    def __init__(self, state_dir: Path, budget_s: float, batch_tokens: int) -> None:
        torch.manual_seed(SEED)
        state_dir.mkdir(parents=True, exist_ok=True)
        self.batch_tokens = batch_tokens
        self.tokenizer = load_tokenizer(state_dir)
        self.model = create_model(self.tokenizer)
        self.pad_id = self.tokenizer.get_vocab()[END_OF_TEXT]
        self.progress = ChatProgress()
        self._optimizer = create_optimizer(self.model)
        self.run = TrainingRun(
            state_dir / "state.pt",
            budget_s,
            self.progress,
            {"model": self.model, "optimizer": self._optimizer},
        )
        self._batches = self._draw_batches()

    def train(self, stop: Event) -> None:
        """Train until the time is up or `stop` is set."""
        self.run.train(self._step, stop)

    def _draw_batches(self) -> Iterator[list[TokenSequence]]:
        """Batches from where the run stands, without end."""
        progress = self.progress
        while True:
            batches = draw_batches(self.tokenizer, progress.pool, self.run.done, self.batch_tokens)
            for batch in batches[progress.batch :]:
                yield batch
                progress.batch += 1
            progress.pool, progress.batch = progress.pool + 1, 0

    def _step(self) -> float:
        """One update from the next batch."""
        batch = next(self._batches)
        ids, weights = to_tensors(batch, self.pad_id)
        loss = weighted_loss(self.model, ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step(
            learning_rate(PEAK_LEARNING_RATE, self.progress.step, WARMUP_STEPS, self.run.done)
        )
        self.progress.num_tokens += int(sum(len(sequence.ids) for sequence in batch))
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="where the run is kept")
    parser.add_argument(
        "--minutes", type=float, default=80, help="training time, restarts included"
    )
    parser.add_argument("--batch-tokens", type=int, default=4096, help="padded tokens in a batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="the checkpoint's folder")
    parser.add_argument(
        "--export-only", action="store_true", help="write the checkpoint of the state as it is"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    training = ChatTraining(options.state_dir, options.minutes * 60, options.batch_tokens)
    if not options.export_only:
        training.train(stop_on_sigterm())
    write_checkpoint(training.model, training.tokenizer, options.output)
    logger.info("checkpoint after %d steps written to %s", training.progress.step, options.output)


if __name__ == "__main__":
    main()
