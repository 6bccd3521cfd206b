"""`/v1/images/...`: the requests, the answer and the events of a streamed one."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engines.errors import InvalidRequest
from engines.image.request import MAX_GUIDANCE_SCALE, MAX_INFERENCE_STEPS, MAX_SEED
from server.schema.sampling import unsupported

MAX_IMAGES = 10
MAX_PARTIAL_IMAGES = 3
MAX_PROMPT_LENGTH = 32_000  # characters; the model's own limit is in tokens
OutputFormat = Literal["png", "jpeg", "webp"]
Quality = Literal["low", "medium", "high"]

Prompt = Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_LENGTH)]


class ImageFields(msgspec.Struct, kw_only=True):
    """What all requests for pictures share; null and left out mean the same.

    Beside OpenAI's fields: `negative_prompt`, `seed`, `num_inference_steps`, `guidance_scale`,
    `scheduler` and `cache_interval`. What is left out comes from the engine.
    """

    model: str | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_IMAGES)] | None = None
    size: Annotated[str, Meta(max_length=16)] | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: OutputFormat | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    background: Literal["auto", "opaque", "transparent"] | None = None
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = None
    moderation: Literal["auto", "low"] | None = None
    user: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=MAX_PARTIAL_IMAGES)] | None = None
    negative_prompt: Annotated[str, Meta(max_length=MAX_PROMPT_LENGTH)] | None = None
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    num_inference_steps: Annotated[int, Meta(ge=1, le=MAX_INFERENCE_STEPS)] | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=MAX_GUIDANCE_SCALE)] | None = None
    scheduler: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    cache_interval: Annotated[int, Meta(ge=1, le=MAX_INFERENCE_STEPS)] | None = None

    @property
    def num_images(self) -> int:
        return self.n or 1

    @property
    def format(self) -> OutputFormat:
        return self.output_format or "png"

    @property
    def compression(self) -> int:
        return 100 if self.output_compression is None else self.output_compression

    def check(self) -> None:
        """Check what fields say together.

        Raises:
            InvalidRequest: Two fields contradict each other.
            ApiError: A value is OpenAI's, but not supported here.
        """
        if self.background == "transparent":
            raise unsupported(
                "background is transparent, but these models paint every pixel, so it must be "
                "opaque or auto",
                "background",
            )
        if self.compression < 100 and self.format == "png":
            raise InvalidRequest(
                f"output_compression is {self.compression}, but png keeps every pixel, so it must "
                "be 100 or output_format jpeg or webp",
                "output_compression",
            )
        self._check_stream()
        self._check_steps()
        for name in ("prompt", "negative_prompt"):
            if "\0" in (getattr(self, name, None) or ""):
                raise InvalidRequest(f"{name} has a null character, which is not text", name)

    def _check_stream(self) -> None:
        if self.partial_images and not self.stream:
            raise InvalidRequest(
                f"partial_images is {self.partial_images}, but it needs stream to be true",
                "partial_images",
            )
        if self.stream and self.response_format == "url":
            raise InvalidRequest(
                "response_format is url, but the events of a stream carry b64_json",
                "response_format",
            )

    def _check_steps(self) -> None:
        chosen = self.quality not in (None, "auto", "standard")
        if chosen and self.num_inference_steps is not None:
            raise InvalidRequest(
                f"quality is {self.quality} and num_inference_steps is "
                f"{self.num_inference_steps}, but both choose the number of steps: send one",
                "quality",
            )


class ImageGenerationRequest(ImageFields, kw_only=True):
    """A prompt that becomes pictures."""

    prompt: Prompt


Strength = Annotated[float, Meta(ge=0, le=1)]


class ImageEditRequest(ImageFields, kw_only=True):
    """The text fields of the form; the files `image` and `mask` come beside them.

    `strength` says how much of the image is replaced, 0 to 1.
    """

    prompt: Prompt
    strength: Strength | None = None


class ImageVariationRequest(ImageFields, kw_only=True):
    """The text fields of the form; the file `image` comes beside them."""

    strength: Strength | None = None

    def check(self) -> None:
        """As of all requests; and OpenAI has no events for variations."""
        super().check()
        if self.stream:
            raise unsupported(
                "stream is true, but variations are not streamed: send the image to "
                "/v1/images/edits",
                "stream",
            )


class ImageInputTokens(msgspec.Struct, kw_only=True):
    """`text_tokens` of prompt and negative prompt; `image_tokens` of a picture to start from."""

    text_tokens: int
    image_tokens: int


class ImageOutputTokens(msgspec.Struct, kw_only=True):
    """A picture has no text."""

    text_tokens: int
    image_tokens: int


class ImageUsage(msgspec.Struct, kw_only=True):
    """Text is counted in tokens of the model's tokenizer, pictures in latents.

    A latent stands for a square of pixels, of 8 a side in most models. What was sent once counts
    once, however many pictures are made of it.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: ImageInputTokens
    output_tokens_details: ImageOutputTokens


class ImageObject(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One picture: as base64 or as a URL on this server, whichever was asked for."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: None = msgspec.field()  # prompts are taken as they are


class ImagesResponse(msgspec.Struct, kw_only=True):
    """What answers a request that is not streamed."""

    created: int  # seconds since the epoch
    data: list[ImageObject]
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat
    quality: Quality
    size: str
    usage: ImageUsage


class _ImageEvent(msgspec.Struct, kw_only=True):
    b64_json: str
    created_at: int  # seconds since the epoch
    size: str
    quality: Quality
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat
    index: int = 0  # which of the request's `n` pictures; not OpenAI's


class ImagePartialEvent(_ImageEvent, kw_only=True):
    """A picture as the model sees it by now."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    partial_image_index: int


class ImageCompletedEvent(_ImageEvent, kw_only=True):
    """A picture that is finished; `usage` is that of this picture alone."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    usage: ImageUsage
