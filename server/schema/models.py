"""`/v1/models`: what is listed of a model, and what is told of one."""

from __future__ import annotations

from typing import Literal

import msgspec


class ModelCard(msgspec.Struct, kw_only=True):
    """An entry of the list; `created` is the time of the request."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: None = None
    parent: None = None
    permission: None = None


class ModelDetails(ModelCard, kw_only=True):
    """One model: its limits and what it was compiled to."""

    max_model_len: int  # tokens of a prompt and its answer together
    kind: str
    family: str
    precision: str
    device: str


class ModelList(msgspec.Struct, kw_only=True):
    """All names that requests may use."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
