"""Rotary position embeddings: the settings in config.json and the tables that they ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import CheckpointError

FloatArray = NDArray[np.float32]

DEFAULT_THETA = 10_000.0
DYNAMIC_NTK = "qwen-ntk"  # of the first Qwen, whose config.json spells it otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnParameters:
    """How YaRN stretches the positions (https://huggingface.co/papers/2309.00071)."""

    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float
    beta_slow: float
    truncate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeParameters:
    """The base wavelength, and how it is stretched beyond the trained positions.

    `ntk_factor` says how many times the trained length dynamic NTK may reach; 1.0 without it.
    """

    theta: float
    yarn: YarnParameters | None = None
    ntk_factor: float = 1.0

    def stretched(self, length: int, trained_length: int, head_dim: int) -> RopeParameters:
        """With the base that dynamic NTK takes for texts of `length` tokens.

        It grows in steps: with the alpha 3 up to twice the trained length, 7 up to four times.
        """
        if length <= trained_length or self.ntk_factor == 1.0:
            return self
        alpha = 2 ** math.ceil(math.log2(length / trained_length) + 1) - 1
        return replace(self, theta=self.theta * alpha ** (head_dim / (head_dim - 2)))


def read_rope_parameters(config: dict[str, Any], *, partial: bool = False) -> RopeParameters:
    """Read both spellings: `rope_theta` with `rope_scaling`, and `rope_parameters`.

    Args:
        config: The content of config.json.
        partial: Whether heads may be rotated in part.

    Raises:
        CheckpointError: The type is neither default nor yarn, or a number is missing.
    """
    settings = config.get("rope_scaling") or config.get("rope_parameters") or {}
    _refuse_unknown(config, settings, partial)
    theta = settings.get("rope_theta", config.get("rope_theta"))
    rope_type = settings.get("rope_type", settings.get("type", "default"))
    try:
        theta = float(DEFAULT_THETA if theta is None else theta)
        if rope_type == "default":
            return RopeParameters(theta=theta)
        if rope_type == "yarn":
            return RopeParameters(theta=theta, yarn=_read_yarn(config, settings))
        if rope_type == DYNAMIC_NTK:
            return RopeParameters(theta=theta, ntk_factor=float(settings["factor"]))
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        raise CheckpointError(
            f"config.json has rope settings that are no numbers: {settings}"
        ) from None
    raise CheckpointError(
        f"config.json asks for the rope type {rope_type!r}, but only default and yarn are supported"
    )


def _refuse_unknown(config: dict[str, Any], settings: dict[str, Any], partial: bool) -> None:
    share = settings.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share not in (None, 1) and not partial:
        raise CheckpointError(
            f"config.json has partial_rotary_factor = {share}, but only whole heads are rotated"
        )
    if any(isinstance(value, dict) for value in settings.values()):
        raise CheckpointError(
            "config.json has rope settings for each kind of layer, which are not supported"
        )


def _read_yarn(config: dict[str, Any], settings: dict[str, Any]) -> YarnParameters:
    original = settings.get("original_max_position_embeddings")
    original = int(config["max_position_embeddings"] if original is None else original)
    factor = settings.get("factor")
    factor = float(config["max_position_embeddings"] / original if factor is None else factor)
    attention_factor = settings.get("attention_factor")
    if attention_factor is None:
        mscale, mscale_all_dim = settings.get("mscale"), settings.get("mscale_all_dim")
        attention_factor = _mscale(factor, 1.0)
        if mscale and mscale_all_dim:
            attention_factor = _mscale(factor, mscale) / _mscale(factor, mscale_all_dim)
    return YarnParameters(
        factor=factor,
        original_max_position_embeddings=original,
        attention_factor=float(attention_factor),
        beta_fast=float(settings.get("beta_fast") or 32),
        beta_slow=float(settings.get("beta_slow") or 1),
        truncate=bool(settings.get("truncate", True)),
    )


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def rope_tables(
    rope: RopeParameters, head_dim: int, num_positions: int
) -> tuple[FloatArray, FloatArray]:
    """Cosines and sines for every position, [num_positions, head_dim / 2] each.

    Frequencies and angles are rounded to float32 where the reference implementation rounds them:
    what a model saw in training at a late position is the rounded angle, not the exact one, and
    behind some ten thousand tokens the last digit of a frequency is the third of its cosine.
    """
    frequencies = _inverse_frequencies(rope, head_dim)  # [head_dim / 2]
    positions = np.arange(num_positions, dtype=np.float32)
    angles = (positions[:, None] * frequencies).astype(np.float64)  # [num_positions, head_dim / 2]
    scale = 1.0 if rope.yarn is None else rope.yarn.attention_factor
    cos = (np.cos(angles) * scale).astype(np.float32)
    sin = (np.sin(angles) * scale).astype(np.float32)
    return cos, sin


def _inverse_frequencies(rope: RopeParameters, head_dim: int) -> FloatArray:
    """[head_dim / 2]; all in float32 but for the power itself, which is rounded once."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    wavelengths = (rope.theta ** exponents.astype(np.float64)).astype(np.float32)
    plain: FloatArray = np.float32(1) / wavelengths
    if rope.yarn is None:
        return plain
    # Fast dimensions keep their frequency, slow ones are stretched by `factor`, and a linear
    # ramp lies between the two.
    yarn = rope.yarn
    low = _dimension_of(yarn.beta_fast, rope.theta, head_dim, yarn)
    high = _dimension_of(yarn.beta_slow, rope.theta, head_dim, yarn)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low if high != low else 0.001
    dimensions = np.arange(head_dim // 2, dtype=np.float32)
    ramp = np.clip((dimensions - np.float32(low)) / np.float32(width), 0, 1)
    kept = np.float32(1) - ramp
    stretched = np.float32(1) / (np.float32(yarn.factor) * wavelengths)
    frequencies: FloatArray = stretched * (np.float32(1) - kept) + plain * kept
    return frequencies


def _dimension_of(num_rotations: float, theta: float, head_dim: int, yarn: YarnParameters) -> float:
    """The dimension that turns `num_rotations` times within the original context."""
    length = yarn.original_max_position_embeddings
    return head_dim * math.log(length / (num_rotations * 2 * math.pi)) / (2 * math.log(theta))
