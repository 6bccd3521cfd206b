"""`/v1/models`: which names requests may use, and what stands behind each."""

from __future__ import annotations

import time

from falcon.asgi import Request, Response
from msgspec import UNSET

from server.registry import (
    ChatModel,
    EmbeddingModel,
    ImageModel,
    ModelRegistry,
    PoolingModel,
)
from server.schema.models import ImageLimits, ModelCard, ModelDetails, ModelList


class Models:
    """The served models; the path of one may hold slashes."""

    def __init__(self, models: ModelRegistry, owned_by: str) -> None:
        self._models = models
        self._owned_by = owned_by

    async def on_get(self, req: Request, resp: Response) -> None:
        """List every name."""
        created = int(time.time())
        resp.media = ModelList(
            data=[
                ModelCard(id=name, created=created, owned_by=self._owned_by)
                for name, _ in self._models.names
            ]
        )

    async def on_get_model(self, req: Request, resp: Response, model_id: str) -> None:
        """Tell of one."""
        model = self._models.get(model_id)
        manifest = model.folder.manifest
        resp.media = ModelDetails(
            id=model_id,
            created=int(time.time()),
            owned_by=self._owned_by,
            max_model_len=model.worker.max_context
            if isinstance(model, ChatModel | PoolingModel)
            else UNSET,
            embedding_width=model.width if isinstance(model, EmbeddingModel) else UNSET,
            image=_image_limits(model) if isinstance(model, ImageModel) else UNSET,
            kind=manifest.kind,
            family=manifest.family,
            precision=manifest.precision,
            device=model.worker.device,
        )


def _image_limits(model: ImageModel) -> ImageLimits:
    spec = model.worker.spec
    return ImageLimits(
        max_prompt_tokens=model.prompts.max_tokens,
        default_size=f"{spec.default_width}x{spec.default_height}",
        size_multiple=spec.size_multiple,
        max_pixels=spec.max_pixels,
        num_inference_steps=spec.default_num_inference_steps,
        guidance_scale=spec.default_guidance_scale,
        scheduler=model.worker.scheduler,
    )
