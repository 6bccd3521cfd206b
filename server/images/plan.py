"""What a request for pictures comes to, once all that it left out is filled in from the engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engines import __version__
from engines.errors import InvalidRequest
from engines.image.request import MAX_INFERENCE_STEPS, MAX_SEED, ImageRequest, Mask, Picture
from engines.manifest import ImageSpec
from server.images.encoding import OutputOptions
from server.images.prompts import EncodedPrompt
from server.images.sizes import Size
from server.registry import ImageModel
from server.schema.images import (
    ImageFields,
    ImageInputTokens,
    ImageOutputTokens,
    ImageUsage,
    Quality,
)

# How many of the engine's own steps a quality takes.
_STEP_FACTORS = {"low": 0.5, "high": 1.5, "hd": 1.5}
_SEED_BITS = 32  # of a seed that the server draws: JavaScript keeps 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture to start from, scaled to the size of the result."""

    picture: Picture  # [height, width, 3]
    mask: Mask | None = None  # [height, width]
    strength: float
    texts: Mapping[str, str] = field(default_factory=dict)  # what the result says of it


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """The pictures of one request; all are alike but for their seeds.

    `first` is the request of the first picture as it would be without a picture to start from.
    """

    model: ImageModel
    first: ImageRequest
    num_images: int
    num_partial_images: int
    size: Size
    output: OutputOptions
    texts: Mapping[str, str]  # what is written into the files, but for the seed
    num_text_tokens: int

    @property
    def quality(self) -> Quality:
        """OpenAI has no word for a number of steps, so it is compared with the engine's own."""
        steps, own = self.first.num_inference_steps, self.model.worker.spec
        if steps == own.default_num_inference_steps:
            return "medium"
        return "low" if steps < own.default_num_inference_steps else "high"

    def requests(self, source: Source | None = None) -> list[ImageRequest]:
        """The engine's requests.

        Raises:
            InvalidRequest: `source` leaves no step to take.
        """
        first = self.first
        if source is not None:
            first = replace(first, image=source.picture, mask=source.mask, strength=source.strength)
        num_steps = self.model.worker.count_steps(first)
        previews = _preview_steps(num_steps, self.num_partial_images)
        return [
            replace(
                first,
                image_id=image_id,
                seed=(first.seed + index) & MAX_SEED,
                preview_steps=previews,
            )
            for index, image_id in enumerate(self.model.worker.new_ids(self.num_images))
        ]

    def usage(self, num_images: int, *, has_source: bool) -> ImageUsage:
        """What so many of the pictures count for."""
        latent = self.model.worker.spec.latent_scale
        per_image = (self.size.width // latent) * (self.size.height // latent)
        num_source = per_image if has_source else 0
        num_input, num_output = self.num_text_tokens + num_source, per_image * num_images
        return ImageUsage(
            input_tokens=num_input,
            output_tokens=num_output,
            total_tokens=num_input + num_output,
            input_tokens_details=ImageInputTokens(
                text_tokens=self.num_text_tokens, image_tokens=num_source
            ),
            output_tokens_details=ImageOutputTokens(text_tokens=0, image_tokens=num_output),
        )


def plan_images(
    model: ImageModel, fields: ImageFields, size: Size, prompt: str | None = None
) -> ImagePlan:
    """Fill in what a request left out, and check it as far as that needs no picture.

    Args:
        model: Draws it.
        fields: The request, already checked in itself.
        size: Of the pictures.
        prompt: None for a variation, which follows the picture alone.

    Raises:
        InvalidRequest: A field is beyond what the model can do.
        ContextLengthExceeded: A text is longer than what the model reads.
    """
    spec = model.worker.spec
    text = model.prompts.encode(prompt or "", "prompt")
    negative = _encode_negative(model, fields)
    has_words = prompt is not None or negative is not None
    first = ImageRequest(
        image_id=0,
        prompt_token_ids=text.token_ids,
        negative_token_ids=None if negative is None else negative.token_ids,
        height=size.height,
        width=size.width,
        num_inference_steps=_num_steps(fields, spec.default_num_inference_steps),
        guidance_scale=_guidance_scale(fields, spec, has_words=has_words),
        seed=secrets.randbits(_SEED_BITS) if fields.seed is None else fields.seed,
        scheduler=fields.scheduler,
        cache_interval=fields.cache_interval or 1,
    )
    if negative is not None and not first.is_guided(spec):
        raise InvalidRequest(
            f"negative_prompt is set, but it has no effect at a guidance_scale of "
            f"{first.guidance_scale:g}, which must be above 1",
            "negative_prompt",
        )
    model.worker.count_steps(first)
    return ImagePlan(
        model=model,
        first=first,
        num_images=fields.num_images,
        num_partial_images=fields.partial_images or 0,
        size=size,
        output=OutputOptions(fields.format, fields.compression),
        texts=_texts(model, fields, first, prompt),
        num_text_tokens=text.num_tokens + (0 if negative is None else negative.num_tokens),
    )


def _encode_negative(model: ImageModel, fields: ImageFields) -> EncodedPrompt | None:
    if not fields.negative_prompt:
        return None
    if not model.worker.spec.takes_negative_prompt:
        raise InvalidRequest("negative_prompt is set, but this model takes none", "negative_prompt")
    return model.prompts.encode(fields.negative_prompt, "negative_prompt")


def _guidance_scale(fields: ImageFields, spec: ImageSpec, *, has_words: bool) -> float:
    if fields.guidance_scale is not None:
        return fields.guidance_scale
    if not has_words and spec.takes_negative_prompt:
        return 1.0  # there is nothing to follow, so half of the work would be for nothing
    return spec.default_guidance_scale


def _num_steps(fields: ImageFields, default: int) -> int:
    if fields.num_inference_steps is not None:
        return fields.num_inference_steps
    wanted = round(default * _STEP_FACTORS.get(fields.quality or "auto", 1.0))
    return min(max(wanted, 1), MAX_INFERENCE_STEPS)


def _preview_steps(num_steps: int, num_previews: int) -> frozenset[int]:
    """Evenly between the first step and the last, which has no preview."""
    parts = num_previews + 1
    wanted = (round(num_steps * part / parts) for part in range(1, parts))
    return frozenset(step for step in wanted if 0 < step < num_steps)


def _texts(
    model: ImageModel, fields: ImageFields, request: ImageRequest, prompt: str | None
) -> dict[str, str]:
    """Named as the fields of a request that makes the picture again."""
    texts = {} if prompt is None else {"prompt": prompt}
    if fields.negative_prompt:
        texts["negative_prompt"] = fields.negative_prompt
    texts |= {
        "size": f"{request.width}x{request.height}",
        "num_inference_steps": str(request.num_inference_steps),
        "guidance_scale": f"{request.guidance_scale!r}",
        "scheduler": request.scheduler or model.worker.scheduler,
    }
    if request.cache_interval > 1:
        texts["cache_interval"] = str(request.cache_interval)
    manifest = model.folder.manifest
    return texts | {"engine": manifest.id, "software": f"Enginery {__version__}"}
