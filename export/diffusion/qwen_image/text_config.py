"""The language half of a Qwen2.5-VL: its config.json and its tensors, read as a Qwen2 decoder's."""

from __future__ import annotations

from typing import Any

from export.checkpoint import CONFIG_FILE
from export.diffusion.qwen_image.template import MAX_TOKENS
from export.diffusion.traits import TextTraits
from export.errors import CheckpointError
from export.qwen.config import DecoderConfig, read_decoder_config
from export.qwen.tensors import HEAD, expected_tensors
from export.tensor_files import TensorFiles

_DECODER = "Qwen2ForCausalLM"
_DEFAULT_THETA = 1_000_000.0
_PREFIXES = ("model.language_model.", "language_model.model.", "model.")
_DECODER_PREFIX = "model."


def read_text_config(file: str, content: dict[str, Any]) -> DecoderConfig:
    """Translate config.json, where the decoder's fields are nested or, in old files, are not.

    A text's positions are the same along all three axes of M-RoPE, so it is plain RoPE.

    Raises:
        CheckpointError: A field is missing, impossible, or asks for what is not supported.
    """
    decoder = content | (content.get("text_config") or {})
    rope = decoder.pop("rope_scaling", None) or decoder.pop("rope_parameters", None) or {}
    if rope.get("rope_type", rope.get("type")) in (None, "mrope", "default"):
        rope = {"rope_type": "default", "rope_theta": rope.get("rope_theta")}
    theta = rope.get("rope_theta") or decoder.get("rope_theta") or _DEFAULT_THETA
    decoder |= {"architectures": [_DECODER], "rope_parameters": rope | {"rope_theta": theta}}
    try:
        config = read_decoder_config(decoder)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(CONFIG_FILE, file)) from None
    if config.sliding_window is not None and config.sliding_window < MAX_TOKENS:
        raise CheckpointError(
            f"{file} has sliding_window = {config.sliding_window}, but a prompt may have "
            f"{MAX_TOKENS} tokens, and windows below that are not supported"
        )
    return config


def text_traits(config: DecoderConfig) -> TextTraits:
    return TextTraits(
        vocab_size=config.vocab_size,
        row_width=config.hidden_size,
        pooled_width=None,
        max_positions=num_positions(config),
    )


def num_positions(config: DecoderConfig) -> int:
    """Tokens that the graph can read."""
    return min(config.longest_context, MAX_TOKENS)


def open_text_tensors(config: DecoderConfig, files: TensorFiles) -> TensorFiles:
    """Check the tensors of the decoder, without its head; names come back as a Qwen2's.

    Raises:
        CheckpointError: One is missing, or has another shape or a type that cannot be compiled.
    """
    prefix = next(
        (one for one in _PREFIXES if any(name.startswith(f"{one}layers.") for name in files)),
        _DECODER_PREFIX,
    )
    tensors = {}
    for name, shape in expected_tensors(config).items():
        if name == HEAD:
            continue
        stored_name = prefix + name.removeprefix(_DECODER_PREFIX)
        files.require(stored_name, shape)
        tensors[name] = files.stored(stored_name)
    return TensorFiles(tensors)
