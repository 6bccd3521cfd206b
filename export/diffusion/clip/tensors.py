"""The tensors of a text encoder's checkpoint, checked and under one spelling."""

from __future__ import annotations

from export.diffusion.clip.config import PROJECTION, TextEncoderConfig, expected_tensors
from export.tensor_files import TensorFiles

_PREFIX = "text_model."


def open_text_encoder_tensors(config: TextEncoderConfig, files: TensorFiles) -> TensorFiles:
    """Check every tensor; names come back without the prefix that most checkpoints have.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in files) else ""
    tensors = {}
    for name, shape in expected_tensors(config).items():
        stored_name = name if name.startswith(PROJECTION) else f"{prefix}{name}"
        files.require(stored_name, shape)
        tensors[name] = files.stored(stored_name)
    return TensorFiles(tensors)
