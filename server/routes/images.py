"""`/v1/images/...`: prompts, and forms with pictures to start from, in; pictures out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from falcon.asgi import Request, Response

from engines.errors import InvalidRequest
from server.form import Form, FormReader
from server.images.encoding import SUFFIXES
from server.images.files import ImageFiles
from server.images.generation import ImageGeneration
from server.images.plan import ImagePlan, Source, plan_images
from server.images.sizes import Size, choose_size
from server.images.threads import PictureThreads
from server.images.uploads import Upload, check_upload, read_mask, read_picture
from server.registry import ImageModel, ModelRegistry
from server.routes.answering import off_loop, respond
from server.routes.image_files import files_url
from server.routes.image_writer import EventKind, ImageWriter
from server.schema.decode import decode
from server.schema.images import (
    ImageEditRequest,
    ImageFields,
    ImageGenerationRequest,
    ImageVariationRequest,
)
from server.schema.unsupported import EDITS, GENERATIONS, VARIATIONS, check_fields

FieldsT = TypeVar("FieldsT", bound=ImageFields)

_IMAGE, _MASK = "image", "mask"
# How much of a picture is replaced where a request does not say.
_REPAINTED, _EDITED, _VARIED = 1.0, 0.8, 0.6


class ImageDrawing:
    """What the routes share: models, threads for pictures, and the files that URLs point to.

    Args:
        models: Those of all kinds.
        files: Where pictures are kept that are sent as URLs.
        form: Reads uploads.
        max_upload_pixels: Of one uploaded picture.
    """

    def __init__(
        self, models: ModelRegistry, files: ImageFiles, form: FormReader, max_upload_pixels: int
    ) -> None:
        self._models = models
        self._files = files
        self._form = form
        self._max_upload_pixels = max_upload_pixels
        self._threads = PictureThreads()

    def find_model(self, req: Request, fields: ImageFields) -> ImageModel:
        """The model of a request, which may leave it out where there is only one.

        Raises:
            ApiError: There is none of that name, or several to choose from.
        """
        model = (
            self._models.find(fields.model, ImageModel)
            if fields.model
            else self._models.find_only(ImageModel)
        )
        req.context.record.model_id = model.id
        return model

    async def read_form(
        self,
        req: Request,
        files: Collection[str],
        fields_type: type[FieldsT],
        refused: Mapping[str, str],
    ) -> tuple[Form, FieldsT, ImageModel]:
        """Read and check a form as far as that needs none of its files.

        Raises:
            ApiError: It is not a form, or asks for what this server does not do.
            InvalidRequest: A field has a value that is not accepted.
        """
        form = await self._form.read(req, files)
        fields = decode(form.texts, fields_type, is_form=True)
        model = self.find_model(req, fields)
        fields.check()
        check_fields(form.texts, refused)
        if _IMAGE not in form.files:
            raise InvalidRequest("image is missing, but it is required", _IMAGE)
        return form, fields, model

    async def check_files(self, form: Form) -> Size:
        """The size of a form's image, by what its files say of themselves.

        Raises:
            InvalidRequest: A file is no picture, too large, or the mask has another size.
        """
        image = await self._threads.run(check_upload, form.files[_IMAGE], self._max_upload_pixels)
        if _MASK in form.files:
            mask = await self._threads.run(check_upload, form.files[_MASK], self._max_upload_pixels)
            if mask != image:
                raise InvalidRequest(
                    f"mask is {mask}, but it must have the image's size, which is {image}", _MASK
                )
        return image

    async def read_source(self, form: Form, size: Size, strength: float) -> Source:
        """Decode the files of a form.

        Raises:
            InvalidRequest: One is damaged.
        """
        return await self._threads.run(_read_source, form, size, strength, self._max_upload_pixels)

    async def respond(
        self,
        req: Request,
        resp: Response,
        fields: ImageFields,
        plan: ImagePlan,
        source: Source | None,
        kind: EventKind,
    ) -> None:
        """Draw, and send the answer.

        Raises:
            EngineryError: The request does not fit the model, or the engine failed.
            ApiError: The client has left, or the answer took too long.
        """
        by_url = fields.response_format == "url"
        deliver = self._by_url(req, plan) if by_url else _to_base64
        generation = ImageGeneration(plan, source, self._threads, deliver, req.context.record)
        writer = ImageWriter(plan, kind, has_source=source is not None, by_url=by_url)
        await respond(req, resp, generation, writer, streamed=bool(fields.stream))

    def _by_url(self, req: Request, plan: ImagePlan) -> Callable[[bytes], str]:
        folder, suffix = files_url(req), SUFFIXES[plan.output.format]

        def deliver(content: bytes) -> str:
            return folder + self._files.put(content, suffix)

        return deliver


class ImageGenerations:
    """Pictures from a prompt, whole or streamed as server-sent events."""

    def __init__(self, drawing: ImageDrawing) -> None:
        self._drawing = drawing

    async def on_post(self, req: Request, resp: Response) -> None:
        body: dict[str, Any] = await req.get_media()
        fields = decode(body, ImageGenerationRequest)
        model = self._drawing.find_model(req, fields)
        fields.check()
        check_fields(body, GENERATIONS)
        size = choose_size(fields.size, model.worker.spec)
        plan = await off_loop(req, plan_images, model, fields, size, fields.prompt)
        await self._drawing.respond(req, resp, fields, plan, None, "image_generation")


class ImageEdits:
    """Pictures from a picture and a prompt, all of it or the part that a mask names."""

    def __init__(self, drawing: ImageDrawing) -> None:
        self._drawing = drawing

    async def on_post(self, req: Request, resp: Response) -> None:
        drawing = self._drawing
        form, fields, model = await drawing.read_form(req, (_IMAGE, _MASK), ImageEditRequest, EDITS)
        size = choose_size(fields.size, model.worker.spec, await drawing.check_files(form))
        plan = await off_loop(req, plan_images, model, fields, size, fields.prompt)
        strength = fields.strength
        if strength is None:
            strength = _REPAINTED if _MASK in form.files else _EDITED
        source = await drawing.read_source(form, size, strength)
        await drawing.respond(req, resp, fields, plan, source, "image_edit")


class ImageVariations:
    """Pictures that are like a picture."""

    def __init__(self, drawing: ImageDrawing) -> None:
        self._drawing = drawing

    async def on_post(self, req: Request, resp: Response) -> None:
        drawing = self._drawing
        form, fields, model = await drawing.read_form(
            req, (_IMAGE,), ImageVariationRequest, VARIATIONS
        )
        size = choose_size(fields.size, model.worker.spec, await drawing.check_files(form))
        plan = await off_loop(req, plan_images, model, fields, size)
        strength = _VARIED if fields.strength is None else fields.strength
        source = await drawing.read_source(form, size, strength)
        await drawing.respond(req, resp, fields, plan, source, "image_edit")


def _to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _read_source(form: Form, size: Size, strength: float, max_pixels: int) -> Source:
    image, mask = form.files[_IMAGE], form.files.get(_MASK)
    texts = {"strength": repr(strength)} | _digest(image)
    if mask is None:
        return Source(picture=read_picture(image, size, max_pixels), strength=strength, texts=texts)
    return Source(
        picture=read_picture(image, size, max_pixels),
        mask=read_mask(mask, size, max_pixels),
        strength=strength,
        texts=texts | _digest(mask),
    )


def _digest(upload: Upload) -> dict[str, str]:
    return {f"{upload.name}_sha256": upload.sha256}
