"""`ImageRequest`: one picture to be made; knows token ids, not texts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.errors import InvalidRequest
from engines.image.schedulers.stepper import check_strength
from engines.manifest import ImageSpec, TextEncoderSpec

Picture = NDArray[np.uint8]  # [height, width, 3]
Mask = NDArray[np.uint8]  # [height, width]
TokenIds = tuple[tuple[int, ...], ...]  # of one text, for each text encoder

MAX_INFERENCE_STEPS = 150
MAX_GUIDANCE_SCALE = 20
MAX_SEED = 2**63 - 1
MIN_REPAINTED = 128  # of a mask: pixels from here on are repainted, those below are kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageRequest:
    """One picture to be made.

    Attributes:
        image_id: The caller's name for it, not in use by another request of the engine.
        prompt_token_ids: The prompt for each text encoder, framed and padded as it reads texts.
        negative_token_ids: What to stay away from, where guided; None is what the model was trained
            to take for no text.
        height: Pixels.
        width: Pixels.
        num_inference_steps: How finely the way from noise to picture is cut, 1 to 150. The model is
            run that often, once more with PNDM, and less often from an image.
        guidance_scale: How far the prompt is followed, 0 to 20. Above 1 every step runs the model
            for the negative prompt too.
        seed: All noise comes from it, so that the same request gives the same picture.
        scheduler: A name that the noise schedule knows; None takes the checkpoint's.
        preview_steps: After which steps, counted from 1, the picture is shown as the model sees it
            by then. The last step has no preview.
        image: A picture to start from, or None to start from noise. [height, width, 3]
        strength: How much of `image` is replaced, 0 to 1.
        mask: Which pixels of `image` are repainted: 255 is repainted and 0 is kept, exactly as it
            is. Values between are taken for the nearer of the two. None repaints all of it.
            [height, width]
        cache_interval: Step caching: the whole denoiser is run at every so many steps, and between
            them only its shallow part, on deep features of the last whole run. 1 is off.

    Raises:
        ValueError: A field is out of its range; the message names field, value and range.
    """

    image_id: int
    prompt_token_ids: TokenIds
    negative_token_ids: TokenIds | None = None
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    scheduler: str | None = None
    preview_steps: frozenset[int] = frozenset()
    image: Picture | None = None
    strength: float = 0.8
    mask: Mask | None = None
    cache_interval: int = 1

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("num_inference_steps", self.num_inference_steps, 1, MAX_INFERENCE_STEPS),
            ("guidance_scale", self.guidance_scale, 0, MAX_GUIDANCE_SCALE),
            ("seed", self.seed, 0, MAX_SEED),
            ("height", self.height, 1, math.inf),
            ("width", self.width, 1, math.inf),
            ("cache_interval", self.cache_interval, 1, MAX_INFERENCE_STEPS),
        ):
            if not least <= value <= most:
                limit = f"at least {least}" if most == math.inf else f"between {least} and {most}"
                raise ValueError(f"{name} is {value}, but it must be {limit}")
        check_strength(self.strength)
        if self.image is not None and self.image.shape != (self.height, self.width, 3):
            raise ValueError(
                f"image has the shape {self.image.shape}, but it must be "
                f"{(self.height, self.width, 3)}, the picture's"
            )
        if self.mask is not None:
            _check_mask(self.mask, self.image)

    def is_guided(self, spec: ImageSpec) -> bool:
        """Whether every step takes two rows, one of them for the negative prompt."""
        return self.guidance_scale > 1 and spec.guidance == "classifier-free"


def _check_mask(mask: Mask, image: Picture | None) -> None:
    if image is None:
        raise ValueError("mask is given without image, but it says what to keep of one")
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"mask has the shape {mask.shape}, but it must be {image.shape[:2]}, the image's"
        )
    if mask.max() < MIN_REPAINTED:
        raise ValueError(
            f"mask is at most {mask.max()}, but a pixel is repainted from {MIN_REPAINTED} on, so "
            "there is nothing to repaint"
        )


def check_request(request: ImageRequest, spec: ImageSpec) -> None:
    """Hold a request against the limits of an engine.

    Raises:
        InvalidRequest: A field is beyond them; the message names field, value and limit.
    """
    for name, size in (("height", request.height), ("width", request.width)):
        if size % spec.size_multiple:
            raise InvalidRequest(
                f"{name} is {size}, but it must be a multiple of {spec.size_multiple}", name
            )
    if request.height * request.width > spec.max_pixels:
        raise InvalidRequest(
            f"size is {request.width}x{request.height}, but a picture may have at most "
            f"{spec.max_pixels} pixels",
            "size",
        )
    if request.cache_interval > 1 and not spec.has_step_caching:
        raise InvalidRequest(
            f"cache_interval is {request.cache_interval}, but the engine has no step caching, "
            "so it must be 1",
            "cache_interval",
        )
    if spec.max_side is not None and max(request.height, request.width) > spec.max_side:
        raise InvalidRequest(
            f"size is {request.width}x{request.height}, but a side may have at most "
            f"{spec.max_side} pixels",
            "size",
        )
    if request.guidance_scale > 1 and not spec.takes_guidance_scale:
        raise InvalidRequest(
            f"guidance_scale is {request.guidance_scale}, but the model was trained to draw "
            "without guidance, so it must be at most 1",
            "guidance_scale",
        )
    _check_token_ids("prompt_token_ids", request.prompt_token_ids, spec.text_encoders)
    if request.negative_token_ids is not None:
        if not spec.takes_negative_prompt:
            raise InvalidRequest(
                "negative_token_ids are given, but the model takes no negative prompt",
                "negative_token_ids",
            )
        _check_token_ids("negative_token_ids", request.negative_token_ids, spec.text_encoders)


def _check_token_ids(
    param: str, token_ids: TokenIds, encoders: tuple[TextEncoderSpec, ...]
) -> None:
    if len(token_ids) != len(encoders):
        raise InvalidRequest(
            f"{param} has ids for {len(token_ids)} text encoders, but the model has "
            f"{len(encoders)}",
            param,
        )
    for ids, encoder in zip(token_ids, encoders, strict=True):
        is_padded = encoder.pad_token_id is not None
        if len(ids) > encoder.max_length or (is_padded and len(ids) < encoder.max_length):
            limit = encoder.max_length if is_padded else f"at most {encoder.max_length}"
            raise InvalidRequest(f"{param} has {len(ids)} ids, but a text has {limit}", param)
        wrong = next((i for i in ids if not 0 <= i < encoder.vocab_size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"{param} has the token id {wrong}, but ids run from 0 to {encoder.vocab_size - 1}",
                param,
            )
