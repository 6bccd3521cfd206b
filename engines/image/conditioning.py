"""From a request's token ids to what the denoiser is told, and back to one guided prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engines.image.prompt import frame_token_ids
from engines.image.request import ImageRequest, TokenIds
from engines.image.runner import Conditioning, FloatArray, ImageRunner
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
    by_encoder = tuple(np.array(ids, np.int64) for ids in zip(*texts, strict=True))
    context, pooled = runner.encode_text(by_encoder)
    if is_guided and without_negative:
        context = np.concatenate([np.zeros_like(context), context])
        pooled = None if pooled is None else np.concatenate([np.zeros_like(pooled), pooled])
    num_rows = len(context)
    return Conditioning(
        context,
        pooled if spec.takes_sizes else None,
        _time_ids(request, num_rows) if spec.takes_sizes else None,
        _guidance(request.guidance_scale, spec.guidance_width, num_rows),
    )


def empty_text(spec: ImageSpec) -> TokenIds:
    """The ids of a text without words."""
    return tuple(frame_token_ids((), encoder) for encoder in spec.text_encoders)


def concatenate(rows: Sequence[Conditioning]) -> Conditioning:
    """The rows of several requests, one behind the other."""
    pooled = [row.pooled for row in rows if row.pooled is not None]
    time_ids = [row.time_ids for row in rows if row.time_ids is not None]
    guidance = [row.guidance for row in rows if row.guidance is not None]
    return Conditioning(
        np.concatenate([row.context for row in rows]),
        np.concatenate(pooled) if pooled else None,
        np.concatenate(time_ids) if time_ids else None,
        np.concatenate(guidance) if guidance else None,
    )


def guide(output: FloatArray, guidance_scale: float) -> FloatArray:
    """Ho and Salimans 2022 (https://arxiv.org/abs/2207.12598): away from the negative prompt.

    `output` is [1, ...], which is returned as it is, or [2, ...] with the negative first. [...]
    """
    if len(output) == 1:
        single: FloatArray = output[0]
        return single
    negative, prompt = output
    guided: FloatArray = negative + np.float32(guidance_scale) * (prompt - negative)
    return guided


def _time_ids(request: ImageRequest, num_rows: int) -> FloatArray:
    """The picture as one that was neither scaled nor cropped. [num_rows, 6]"""
    size = (request.height, request.width)
    return np.tile(np.array([*size, 0, 0, *size], np.float32), (num_rows, 1))


def _guidance(scale: float, width: int | None, num_rows: int) -> FloatArray | None:
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
