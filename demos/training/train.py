"""Trains the demo checkpoint: `python -m demos.training.train --state-dir DIR`, resumable."""

import argparse
import ctypes
import logging
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import Qwen3ForCausalLM

from demos.training.corpus import training_examples
from demos.training.model import MAX_LEN, create_model, write_checkpoint
from demos.training.render import CHECKPOINT, END_OF_TEXT, TokenSequence, full_text, tokenize
from demos.training.tokenizer import train_tokenizer

logger = logging.getLogger("demos.training")

SEED = 7
POOL_EXAMPLES = 3000
TOKENIZER_EXAMPLES = 20_000
PEAK_LEARNING_RATE = 4e-3
WARMUP_STEPS = 60
SAVE_EVERY_S = 240
PROMPT_TOKEN_SHARE = 0.25


def keep_freed_memory() -> None:
    """Tell glibc to keep big freed blocks: page faults were a quarter of the time."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, size in (
            (mmap_threshold, 2**31 - 1),
            (trim_threshold, 2**31 - 1),
            (top_pad, 2**26),
        ):
            libc.mallopt(parameter, size)


@dataclass
class Progress:
    """Where training stands: enough, with the model and the optimizers, to go on after a stop."""

    pool: int = 0
    batch: int = 0
    step: int = 0
    num_tokens: int = 0
    elapsed_s: float = 0.0


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


def create_optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(
            matrices, lr=PEAK_LEARNING_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


class Run:
    """One training run on disk: model, optimizers and progress under `state_dir`."""

    def __init__(self, state_dir: Path, budget_s: float, batch_tokens: int) -> None:
        torch.manual_seed(SEED)
        state_dir.mkdir(parents=True, exist_ok=True)
        self.path = state_dir / "state.pt"
        self.budget_s = budget_s
        self.batch_tokens = batch_tokens
        self.tokenizer = load_tokenizer(state_dir)
        self.model = create_model(self.tokenizer)
        self.optimizers = create_optimizers(self.model)
        self.pad_id = self.tokenizer.get_vocab()[END_OF_TEXT]
        self.progress = Progress()
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def save(self) -> None:
        """Replace the state on disk in one move, so that a killed save leaves the last one."""
        partial = self.path.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "progress": vars(self.progress),
            },
            partial,
        )
        partial.replace(self.path)

    def batches(self) -> Iterator[list[TokenSequence]]:
        """Batches from where the run stands until its time is up."""
        while True:
            done = self.progress.elapsed_s / self.budget_s
            batches = draw_batches(self.tokenizer, self.progress.pool, done, self.batch_tokens)
            for batch in batches[self.progress.batch :]:
                if self.progress.elapsed_s >= self.budget_s:
                    return
                yield batch
                self.progress.batch += 1
            self.progress.pool, self.progress.batch = self.progress.pool + 1, 0

    def step(self, batch: list[TokenSequence]) -> float:
        """One update; the learning rate falls to zero as the time runs out."""
        done = self.progress.elapsed_s / self.budget_s
        rate = (
            PEAK_LEARNING_RATE
            * min(1.0, (self.progress.step + 1) / WARMUP_STEPS)
            * max(1 - done, 0.01)
        )
        ids, weights = to_tensors(batch, self.pad_id)
        loss = weighted_loss(self.model, ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        self.progress.step += 1
        self.progress.num_tokens += int(sum(len(sequence.ids) for sequence in batch))
        return loss.item()

    def train(self, stop: Event) -> None:
        """Train until the time is up or `stop` is set; time spent before a restart counts."""
        last = last_save = time.monotonic()
        losses: list[float] = []
        for batch in self.batches():
            losses.append(self.step(batch))
            now = time.monotonic()
            self.progress.elapsed_s += now - last
            last = now
            if self.progress.step % 50 == 0:
                logger.info(
                    "step %d, %.1f min, %d tokens, loss %.4f",
                    self.progress.step,
                    self.progress.elapsed_s / 60,
                    self.progress.num_tokens,
                    sum(losses) / len(losses),
                )
                losses.clear()
            if now - last_save > SAVE_EVERY_S:
                self.save()
                last_save = now
            if stop.is_set():
                break
        self.save()


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
    run = Run(options.state_dir, options.minutes * 60, options.batch_tokens)
    if not options.export_only:
        stop = Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        run.train(stop)
    write_checkpoint(run.model, run.tokenizer, options.output)
    logger.info("checkpoint after %d steps written to %s", run.progress.step, options.output)


if __name__ == "__main__":
    main()
