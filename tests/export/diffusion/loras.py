"""Tiny LoRA files of every spelling, and what they add to a checkpoint's weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
RANK = 3


def weights(checkpoint: Path, component: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / component / WEIGHTS[component])


@dataclass
class LoraBuilder:
    """Makes matrices for modules of a checkpoint, and keeps what they add.

    `tensors` is the file's content, `deltas` the sums by component and module.
    """

    checkpoint: Path
    seed: int = 0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    deltas: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator) / math.sqrt(math.prod(shape[1:]))

    def add(
        self,
        component: str,
        module: str,
        key: str,
        *,
        names: tuple[str, str] = (".lora_A.weight", ".lora_B.weight"),
        alpha: float | None = None,
        alpha_name: str = ".alpha",
        rank: int = RANK,
        tucker: bool = False,
    ) -> None:
        """One layer for `module`, under `key` in the file."""
        stored = weights(self.checkpoint, component)
        if f"{module}.weight" not in stored:  # some text encoders are saved with a prefix
            module = f"text_model.{module}"
        shape = stored[f"{module}.weight"].shape
        kernel = tuple(shape[2:])
        ones = (1,) * len(kernel)
        down = self.random(rank, shape[1], *(ones if tucker else kernel))
        up = self.random(shape[0], rank, *ones)
        self.tensors |= {key + names[0]: down, key + names[1]: up}
        if tucker:
            mid = self.random(rank, rank, *kernel)
            self.tensors[f"{key}.lora_mid.weight"] = mid
            delta = torch.einsum("op,pqhw,qi->oihw", up.flatten(1), mid, down.flatten(1))
        else:
            delta = (up.flatten(1) @ down.flatten(1)).reshape(shape)
        if alpha is not None:
            self.tensors[key + alpha_name] = torch.tensor(alpha)
            delta = delta * alpha / rank
        self.deltas[component, module] = delta

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> Path:
        save_file(self.tensors, path, metadata)
        return path

    def expected(self, scale: float = 1.0) -> dict[tuple[str, str], torch.Tensor]:
        """The weights of the changed modules after the merge."""
        return {
            (component, module): weights(self.checkpoint, component)[f"{module}.weight"]
            + scale * delta
            for (component, module), delta in self.deltas.items()
        }


def apply(checkpoint: Path, changed: dict[tuple[str, str], torch.Tensor]) -> Path:
    """Write changed weights into a checkpoint's own files."""
    for component in {component for component, _ in changed}:
        tensors = weights(checkpoint, component)
        for (name, module), weight in changed.items():
            if name == component:
                tensors[f"{module}.weight"] = weight.contiguous()
        save_file(tensors, checkpoint / component / WEIGHTS[component], {"format": "pt"})
    return checkpoint
