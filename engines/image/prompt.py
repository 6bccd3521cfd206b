"""From the ids of a plain text to the ids that a text encoder reads."""

from __future__ import annotations

from collections.abc import Sequence

from engines.manifest import ImageSpec, TextEncoderSpec

_NUM_FRAME_IDS = 2  # the start and the end of a text


def frame_token_ids(text_ids: Sequence[int], encoder: TextEncoderSpec) -> tuple[int, ...]:
    """One text as one text encoder reads it: start, as much as fits, end, padding. [max_length]

    Args:
        text_ids: What the encoder's tokenizer makes of the text, without special tokens.
        encoder: Reads them.
    """
    kept = tuple(text_ids[: encoder.max_length - _NUM_FRAME_IDS])
    framed = (encoder.bos_token_id, *kept, encoder.eos_token_id)
    return framed + (encoder.pad_token_id,) * (encoder.max_length - len(framed))


def max_text_tokens(spec: ImageSpec) -> int:
    """The most tokens of a text that at least one of the text encoders reads whole."""
    return max(encoder.max_length for encoder in spec.text_encoders) - _NUM_FRAME_IDS
