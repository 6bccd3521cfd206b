"""From the ids of a plain text to the ids that a text encoder reads."""

from __future__ import annotations

from collections.abc import Sequence

from engines.manifest import ImageSpec, TextEncoderSpec


def frame_token_ids(text_ids: Sequence[int], encoder: TextEncoderSpec) -> tuple[int, ...]:
    """One text as one text encoder reads it: prefix, as much as fits, suffix, padding.

    These are `max_length` ids, or where the encoder has no padding at most so many.

    Args:
        text_ids: What the encoder's tokenizer makes of the text, without special tokens.
        encoder: Reads them.
    """
    kept = tuple(text_ids[: _num_text_ids(encoder)])
    framed = encoder.prefix_token_ids + kept + encoder.suffix_token_ids
    if encoder.pad_token_id is None:
        return framed
    return framed + (encoder.pad_token_id,) * (encoder.max_length - len(framed))


def max_text_tokens(spec: ImageSpec) -> int:
    """The most tokens of a text that at least one of the text encoders reads whole."""
    return max(map(_num_text_ids, spec.text_encoders))


def _num_text_ids(encoder: TextEncoderSpec) -> int:
    num_frame_ids = len(encoder.prefix_token_ids) + len(encoder.suffix_token_ids)
    return encoder.max_length - num_frame_ids
