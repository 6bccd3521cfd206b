"""Teaches the text encoder what captions say, before the denoiser reads it.

From noise alone the denoiser learns a background's colour soon, but what is said of a shape, which
covers a twentieth of a picture, very late. A text encoder that already tells the words apart, and
binds a colour to the word behind it, saves it most of that time.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from threading import Event

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from demos.diffusion_training.captions import describe
from demos.diffusion_training.components import TEXT_WIDTH, create_text_encoder
from demos.diffusion_training.scenes import COLOURS, KINDS, PLACES, RADII, Scene, draw_scene
from demos.diffusion_training.tokenizer import END
from demos.training.muon import MuonAdamW, split_weights
from demos.training.run import Progress, TrainingRun, learning_rate

PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 50
BATCH_SIZE = 64
SHORT, LONG, LONG_EVERY = 34, 77, 4  # tokens; the longer texts are nothing but more padding
MAX_SHAPES = 2
EMBEDDING_STD = 0.1
WORD_WEIGHT = 0.5
_NAMES = (tuple(KINDS), tuple(COLOURS), tuple(RADII), tuple(PLACES))
_UNSAID = -100  # a label that counts for nothing


class SceneReader(nn.Module):
    """A text encoder with linear layers that read a scene, and the word before, off its rows."""

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        shape_sizes = tuple(len(names) for names in _NAMES)
        self.sizes = (len(COLOURS), MAX_SHAPES, *shape_sizes * MAX_SHAPES)
        self.scene_head = nn.Linear(TEXT_WIDTH, sum(self.sizes))
        self.word_head = nn.Linear(TEXT_WIDTH, text_encoder.config.vocab_size)

    def loss(
        self, token_ids: torch.Tensor, ends: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """How badly `rows` tell the scenes, and the rows up to `ends` the words before them.

        Args:
            token_ids: [B, T]
            ends: Where the texts end, [B].
            rows: Where the scenes are read, [B].
            labels: `scene_labels` of each scene, [B, num_labels].
        """
        hidden = self.text_encoder(input_ids=token_ids).last_hidden_state  # [B, T, H]
        scene_logits = self.scene_head(hidden[torch.arange(len(hidden)), rows])
        losses = [
            F.cross_entropy(found, wanted, ignore_index=_UNSAID)
            for found, wanted in zip(
                scene_logits.split(self.sizes, dim=1), labels.unbind(1), strict=True
            )
        ]
        is_text = torch.arange(1, token_ids.shape[1]) <= ends[:, None]  # [B, T - 1]
        word_logits = self.word_head(hidden[:, 1:][is_text])
        word_loss = F.cross_entropy(word_logits, token_ids[:, :-1][is_text])
        return torch.stack(losses).mean() + WORD_WEIGHT * word_loss


def place_positions(text_encoder: CLIPTextModel) -> None:
    """Start with positions as waves, so that attending to the word before is soon learnt."""
    embeddings = text_encoder.embeddings
    positions = embeddings.position_embedding.weight
    count, width = positions.shape
    frequencies = 0.01 ** (torch.arange(width // 2) / (width // 2))
    angles = torch.arange(count)[:, None] * frequencies
    with torch.no_grad():
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [T, H]
        positions.copy_(EMBEDDING_STD * math.sqrt(2) * waves)
        nn.init.normal_(embeddings.token_embedding.weight, std=EMBEDDING_STD)


def scene_labels(scene: Scene) -> list[int]:
    """Background, number of shapes, then kind, colour, size and place of the shapes in order."""
    labels = [list(COLOURS).index(scene.background), len(scene.shapes) - 1]
    for shape in scene.shapes:
        attributes = (shape.kind, shape.colour, shape.size, shape.place)
        labels += [names.index(name) for names, name in zip(_NAMES, attributes, strict=True)]
    return labels + [_UNSAID] * (len(_NAMES) * (MAX_SHAPES - len(scene.shapes)))


class TextTraining:
    """One run; its result is `text_encoder`.

    Args:
        path: The file of its state.
        budget_s: Seconds of training, restarts included.
        tokenizer: The folder of the captions' tokenizer.
    """

    def __init__(self, path: Path, budget_s: float, tokenizer: Path) -> None:
        self._tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
        vocabulary = json.loads((tokenizer / "vocab.json").read_text(encoding="utf-8"))
        self._end_id = vocabulary[END]
        self.text_encoder = create_text_encoder(vocabulary)
        place_positions(self.text_encoder)
        self._reader = SceneReader(self.text_encoder)
        matrices, others = split_weights(self._reader, ("embedding", "head"))
        self._optimizer = MuonAdamW(matrices, others, PEAK_LEARNING_RATE)
        self.run = TrainingRun(
            path, budget_s, Progress(), {"model": self._reader, "optimizer": self._optimizer}
        )

    def train(self, stop: Event) -> None:
        self.run.train(self._step, stop)

    def _step(self) -> float:
        progress = self.run.progress
        loss = self._reader.loss(*self._draw_batch(Random(f"text {progress.step}")))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._reader.parameters(), 1.0)
        self._optimizer.step(
            learning_rate(PEAK_LEARNING_RATE, progress.step, WARMUP_STEPS, self.run.done)
        )
        return loss.item()

    def _draw_batch(self, rng: Random) -> tuple[torch.Tensor, ...]:
        """What `SceneReader.loss` takes.

        The row that ends a text says it all, and so does any padding behind it.
        """
        scenes = [draw_scene(rng) for _ in range(BATCH_SIZE)]
        length = LONG if rng.randrange(LONG_EVERY) == 0 else SHORT
        token_ids = torch.tensor(
            self._tokenizer(
                [describe(rng, scene) for scene in scenes],
                padding="max_length",
                max_length=length,
                truncation=True,
            ).input_ids
        )
        ends = (token_ids == self._end_id).int().argmax(1)
        rows = [end if rng.random() < 0.5 else rng.randrange(end, length) for end in ends.tolist()]
        labels = [scene_labels(scene) for scene in scenes]
        return token_ids, ends, torch.tensor(rows), torch.tensor(labels)
