"""`/v1/models`: what is listed of a model, and what is told of one."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class ModelCard(msgspec.Struct, kw_only=True):
    """An entry of the list; `created` is the time of the request."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: None = None
    parent: None = None
    permission: None = None


class ImageLimits(msgspec.Struct, kw_only=True):
    """What an image model draws, and what requests that leave it out get."""

    max_prompt_tokens: int
    default_size: str
    size_multiple: int  # of width and height, in pixels
    max_pixels: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str


class ModelDetails(ModelCard, kw_only=True):
    """One model: its limits, which are those of its kind, and what it was compiled to."""

    # Tokens of a prompt and its answer together, or of a text that is embedded or ranked.
    max_model_len: int | UnsetType = UNSET
    embedding_width: int | UnsetType = UNSET  # numbers of an embedding
    image: ImageLimits | UnsetType = UNSET
    kind: str
    family: str
    precision: str
    device: str


class ModelList(msgspec.Struct, kw_only=True):
    """All names that requests may use."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
