"""Measures diffusers on torch, without compilation.

python -m benchmarks.images.diffusers_torch --model CHECKPOINT [--dtype bfloat16 --threads N ...]
"""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from benchmarks.images.adapter import ImageModel, run_adapter


class TorchModel(ImageModel):
    """The modules of a pipeline, channels last."""

    def __init__(self, checkpoint: Path, num_threads: int, dtype: torch.dtype) -> None:
        torch.set_num_threads(num_threads)

        def load(kind: Any, folder: str) -> Any:
            module = kind.from_pretrained(checkpoint, subfolder=folder, dtype=dtype)
            return module.to(memory_format=torch.channels_last).eval()

        self._text_encoder = load(CLIPTextModel, "text_encoder")
        self._unet = load(UNet2DConditionModel, "unet")
        self._vae = load(AutoencoderKL, "vae")
        self._dtype = dtype
        self._scale = 2 ** (len(self._vae.config.block_out_channels) - 1)
        config = self._text_encoder.config
        length = config.max_position_embeddings
        self._token_ids = torch.ones(2, length, dtype=torch.int64)  # [2, length]
        self._context = torch.randn(2, length, config.hidden_size, dtype=dtype)
        packages = ("diffusers", "torch")
        self.version = ", ".join(f"{name} {version(name)}" for name in packages)

    def encode_texts(self) -> None:
        with torch.inference_mode():
            self._text_encoder(self._token_ids)

    def guided_step(self, size: int) -> None:
        with torch.inference_mode():
            self._unet(self._latents(2, size), torch.full((2,), 500.0), self._context)

    def decode(self, size: int) -> None:
        with torch.inference_mode():
            self._vae.decode(self._latents(1, size))

    def _latents(self, rows: int, size: int) -> torch.Tensor:
        side = size // self._scale
        latents = torch.randn(rows, self._unet.config.in_channels, side, side, dtype=self._dtype)
        return latents.contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    run_adapter(
        lambda args: TorchModel(args.model, args.threads, getattr(torch, args.dtype)), parser
    )


if __name__ == "__main__":
    main()
