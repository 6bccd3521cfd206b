"""From a request's token ids to what the denoiser is told, and back to one guided prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, TokenIds
from engines.image.runner import Conditioning, EncodedText, FloatArray, ImageRunner, IntArray
from engines.manifest import ImageSpec

_GUIDANCE_FREQUENCY = 1000.0


def encode_request(request: ImageRequest, spec: ImageSpec, runner: ImageRunner) -> Conditioning:
    """Encode the texts of a request: one row, or where guided the negative and the prompt.

    Its texts run by themselves, so that they never depend on other requests.
    """
    texts = [request.prompt_token_ids]
    is_guided = request.is_guided(spec)
    without_negative = request.negative_token_ids is None and spec.zeros_without_negative
    if is_guided and not without_negative:
        texts.insert(0, request.negative_token_ids or empty_text(spec))
    # Ragged texts are told one by one: they have no common length.
    batches = [[text] for text in texts] if spec.has_ragged_texts else [texts]
    told = concatenate([_encode_texts(batch, spec, runner) for batch in batches])
    context, pooled = told.context, told.pooled
    if is_guided and without_negative:
        context = np.concatenate([np.zeros_like(context), context])
        pooled = None if pooled is None else np.concatenate([np.zeros_like(pooled), pooled])
    num_rows = len(context)
    is_told = spec.guidance == "distilled" and spec.guidance_width is None
    return Conditioning(
        context,
        told.context_lengths,
        pooled,
        _time_ids(request, num_rows) if spec.takes_sizes else None,
        _guidance_waves(request.guidance_scale, spec.guidance_width, num_rows),
        np.full(num_rows, request.guidance_scale, np.float32) if is_told else None,
    )


def empty_text(spec: ImageSpec) -> TokenIds:
    """The ids of a text without words."""
    return tuple(
        frame_token_ids(encoder.empty_token_ids, encoder) for encoder in spec.text_encoders
    )


def concatenate(rows: Sequence[Conditioning]) -> Conditioning:
    """The rows of several requests, one behind the other; ragged texts get a common length."""
    num_tokens = max(row.context.shape[1] for row in rows)
    return Conditioning(
        np.concatenate([_pad(row.context, (0, num_tokens, 0)) for row in rows]),
        _join_ids(row.context_lengths for row in rows),
        _join(row.pooled for row in rows),
        _join(row.time_ids for row in rows),
        _join(row.guidance_waves for row in rows),
        _join(row.guidance_scale for row in rows),
    )


def compose_context(encoded: Sequence[EncodedText], spec: ImageSpec) -> FloatArray:
    """The rows of all text encoders where the specification puts them. [n, num_tokens, width]"""
    groups: list[FloatArray] = []
    for text, encoder in zip(encoded, spec.text_encoders, strict=True):
        if encoder.context == "none":
            continue
        assert text.rows is not None, f"{encoder.graph} gives no rows"
        if encoder.context == "beside" and groups:
            groups[-1] = np.concatenate([groups[-1], text.rows], axis=-1)
        else:
            groups.append(text.rows)
    width = spec.context_width or max(group.shape[-1] for group in groups)
    context = np.concatenate([_pad(group, (0, 0, width)) for group in groups], axis=1)
    return _pad(context, (0, context.shape[1] + spec.num_empty_rows, 0))


def compose_pooled(encoded: Sequence[EncodedText], spec: ImageSpec) -> FloatArray | None:
    """The pooled texts side by side, or None where no encoder gives one. [n, width]"""
    pooled = [
        text.pooled
        for text, encoder in zip(encoded, spec.text_encoders, strict=True)
        if encoder.gives_pooled and text.pooled is not None
    ]
    return np.concatenate(pooled, axis=-1) if pooled else None


def guide(output: FloatArray, guidance_scale: float, spec: ImageSpec) -> FloatArray:
    """Ho and Salimans 2022 (https://arxiv.org/abs/2207.12598): away from the negative prompt.

    Args:
        output: [1, C, h, w], which is returned as it is, or [2, C, h, w] with the negative first.
        guidance_scale: How far away.
        spec: Says whether each patch of what comes out is made as long as the prompt's own.

    Returns:
        The guided prediction. [C, h, w]
    """
    if len(output) == 1:
        single: FloatArray = output[0]
        return single
    negative, prompt = output
    guided: FloatArray = negative + np.float32(guidance_scale) * (prompt - negative)
    if not spec.rescales_guidance:
        return guided
    lengths, wanted = (_patch_lengths(one, spec.patch_size) for one in (guided, prompt))
    bounded: FloatArray = np.maximum(lengths, np.finfo(np.float32).tiny)
    factor: FloatArray = wanted / bounded  # [h / patch, w / patch]
    rescaled: FloatArray = guided * factor.repeat(spec.patch_size, 0).repeat(spec.patch_size, 1)
    return rescaled


def _patch_lengths(prediction: FloatArray, size: int) -> FloatArray:
    """The Euclidean norm of each patch over all channels, [C, h, w] -> [h / size, w / size]."""
    channels, height, width = prediction.shape
    patches = prediction.reshape(channels, height // size, size, width // size, size)
    lengths: FloatArray = np.sqrt(np.square(patches).sum(axis=(0, 2, 4)))
    return lengths


def _encode_texts(texts: list[TokenIds], spec: ImageSpec, runner: ImageRunner) -> Conditioning:
    """Texts of the same length; only what comes from them is told."""
    by_encoder = tuple(np.array(ids, np.int64) for ids in zip(*texts, strict=True))
    encoded = runner.encode_text(by_encoder)
    context = compose_context(encoded, spec)
    lengths = np.full(len(context), context.shape[1]) if spec.has_ragged_texts else None
    return Conditioning(context, lengths, compose_pooled(encoded, spec))


def _pad(array: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """Zeros behind every axis up to its size, where that is more than it has."""
    widths = [(0, max(size - had, 0)) for size, had in zip(sizes, array.shape, strict=True)]
    return np.pad(array, widths) if any(after for _, after in widths) else array


def _join(parts: Iterable[FloatArray | None]) -> FloatArray | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def _join_ids(parts: Iterable[IntArray | None]) -> IntArray | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def _time_ids(request: ImageRequest, num_rows: int) -> FloatArray:
    """The picture as one that was neither scaled nor cropped. [num_rows, 6]"""
    size = (request.height, request.width)
    return np.tile(np.array([*size, 0, 0, *size], np.float32), (num_rows, 1))


def _guidance_waves(scale: float, width: int | None, num_rows: int) -> FloatArray | None:
    """Sines and cosines of the guidance scale, as distilled models read it. [num_rows, width]

    Luo et al. 2023 (https://arxiv.org/abs/2310.04378), section 4.2; counted from 1, no guidance.
    """
    if width is None:
        return None
    half = width // 2
    frequencies = np.exp(-math.log(10_000) / (half - 1) * np.arange(half))
    angles = (scale - 1) * _GUIDANCE_FREQUENCY * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2)])
    return np.tile(waves.astype(np.float32), (num_rows, 1))
