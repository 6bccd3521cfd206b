"""Uploaded files to pixels: what a file says of itself is checked before anything is decoded.

Pillow is imported by the functions that need it: a server without image models never does.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from engines.errors import InvalidRequest
from engines.image.request import Mask, Picture
from server.images.sizes import Size

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

R = TypeVar("R")

FORMATS = ("PNG", "JPEG", "WEBP")
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
_ORIENTATION = 0x0112  # the Exif tag
_TURNED = (5, 6, 7, 8)  # values of it that stand for a picture that lies on its side
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a form."""

    name: str  # the field: image or mask
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def check_upload(upload: Upload, max_pixels: int) -> Size:
    """Read the head of a file: its size as it is looked at. Nothing is decoded.

    Raises:
        InvalidRequest: It is no picture, a moving one, or has more than `max_pixels`.
    """
    image = _open(upload, max_pixels)
    return _attempt(upload.name, lambda: _oriented_size(image))


def read_picture(upload: Upload, size: Size, max_pixels: int) -> Picture:
    """Decode a picture: upright, opaque (over white), 8 bits a channel, scaled to `size`.

    Raises:
        InvalidRequest: The file is damaged.
    """
    from PIL import Image

    image = _plain(_decode(upload, max_pixels, max_side=2 * max(size.width, size.height)))
    image = image.resize((size.width, size.height), Image.Resampling.LANCZOS)
    return np.array(_opaque(image), np.uint8)  # [height, width, 3]


def read_mask(upload: Upload, size: Size, max_pixels: int) -> Mask:
    """Decode a mask, scaled to `size`: 255 where the picture is repainted, 0 where it is kept.

    As OpenAI has it, what is fully transparent is repainted. A mask without transparent pixels
    says it in black and white instead: white is repainted.

    Raises:
        InvalidRequest: The file is damaged, or there is nothing to repaint.
    """
    from PIL import Image

    image = _decode(upload, max_pixels)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None and alpha.getextrema() != (255, 255):
        repainted = alpha.point([255] + [0] * 255)
    else:
        repainted = _plain(image).convert("RGB").convert("L").point([0] * 128 + [255] * 128)
    scaled = repainted.resize((size.width, size.height), Image.Resampling.BOX)
    repainted = scaled.point([0] * 128 + [255] * 128)
    if repainted.getextrema() == (0, 0):
        raise InvalidRequest(
            f"{upload.name} has nothing to repaint: make those pixels transparent, or white in a "
            "mask without transparency",
            upload.name,
        )
    return np.array(repainted, np.uint8)  # [height, width]


def _open(upload: Upload, max_pixels: int) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    name = upload.name
    if not upload.content:
        raise InvalidRequest(f"{name} is an empty file", name)
    try:
        image = Image.open(io.BytesIO(upload.content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidRequest(
            f"{name} has far more than {max_pixels} pixels, which is this server's limit", name
        ) from None
    except UnidentifiedImageError as error:
        if upload.content.startswith(_BEGINNINGS):
            raise _damaged(name, error) from None
        raise InvalidRequest(f"{name} is not a PNG, JPEG or WebP file", name) from None
    except Exception as error:
        raise _damaged(name, error) from None
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidRequest(
            f"{name} has {width} x {height} pixels, but this server takes at most {max_pixels}",
            name,
        )
    # Some cameras put a second view behind the picture, which is no movement.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InvalidRequest(f"{name} is an animation, but it must be a single picture", name)
    return image


def _decode(upload: Upload, max_pixels: int, max_side: int | None = None) -> Image.Image:
    """Decode a file and turn it as its camera says; with `max_side` a JPEG may come smaller.

    It then has at least so many pixels on each side. That takes far less time and memory.
    """
    from PIL import ImageOps

    image = _open(upload, max_pixels)
    if max_side is not None:
        image.draft(None, (max_side, max_side))

    def upright() -> Image.Image:
        image.load()
        return ImageOps.exif_transpose(image)

    return _attempt(upload.name, upright)


def _plain(image: Image.Image) -> Image.Image:
    """Any mode as RGB, or as RGBA where something may be transparent."""
    from PIL import Image

    if image.mode in _WIDE_MODES:  # the library cuts off what is above 255
        levels = np.asarray(image.convert("F"))
        image = Image.fromarray((levels / 257).round().clip(0, 255).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """RGBA over white."""
    from PIL import Image

    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _oriented_size(image: Image.Image) -> Size:
    width, height = image.size
    is_turned = image.getexif().get(_ORIENTATION) in _TURNED
    return Size(height, width) if is_turned else Size(width, height)


def _attempt(name: str, function: Callable[[], R]) -> R:
    try:
        return function()
    except Exception as error:
        # Decoders of hostile files raise whatever they stumble over.
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> InvalidRequest:
    logger.debug("cannot read %s", name, exc_info=error)
    return InvalidRequest(f"{name} is damaged or cut off and cannot be read", name)
