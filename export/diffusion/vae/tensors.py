"""The tensors of an autoencoder's checkpoint, checked and under one spelling."""

from __future__ import annotations

from export.diffusion.shapes import Shapes
from export.diffusion.vae.config import VAEConfig
from export.diffusion.vae.structure import ATTENTION_LAYERS, decoder_tensors, encoder_tensors
from export.tensor_files import TensorFiles

# What the attention's layers are called in old checkpoints, such as Stable Diffusion 1.5's.
_OLD_NAMES = dict(zip(ATTENTION_LAYERS, ("query", "key", "value", "proj_attn"), strict=True))


def open_vae_tensors(config: VAEConfig, files: TensorFiles) -> TensorFiles:
    """Check every tensor of both halves; names come back in the new spelling.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    shapes: Shapes = encoder_tensors(config) | decoder_tensors(config)
    tensors = {}
    for name, shape in shapes.items():
        stored_name = name if name in files else _old_name(name)
        files.require(stored_name if stored_name in files else name, shape)
        tensors[name] = files.stored(stored_name)
    return TensorFiles(tensors)


def _old_name(name: str) -> str:
    for new, old in _OLD_NAMES.items():
        name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
    return name
