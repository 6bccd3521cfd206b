"""Pictures to PNG, JPEG and WebP files, with what they were made from written into them.

Pillow is imported by the functions that need it: a server without image models never does.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.image.request import Picture
from server.schema.images import OutputFormat

SUFFIXES: Mapping[OutputFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}  # by suffix

# Twice as fast as the library's own level, for files that are a tenth larger.
_PNG_LEVEL = 1
_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_ASCII = b"ASCII\0\0\0"
_MAX_COMMENT = 60_000  # bytes; what Exif holds in a JPEG file


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How pictures are sent; `quality` is OpenAI's `output_compression`, 0 to 100."""

    format: OutputFormat
    quality: int = 100


def encode_picture(picture: Picture, options: OutputOptions, texts: Mapping[str, str]) -> bytes:
    """A file of a picture [height, width, 3]; the same picture and texts give the same bytes.

    Args:
        picture: What to encode.
        options: Format and quality.
        texts: Go into the text chunks of a PNG file, and as one JSON object into the Exif user
            comment of the others, where it is left out if it is longer than Exif allows.
    """
    from PIL import Image

    image = Image.fromarray(picture)
    file = io.BytesIO()
    if options.format == "png":
        image.save(file, "PNG", compress_level=_PNG_LEVEL, pnginfo=_png_texts(texts))
    else:
        settings: dict[str, Any] = {"quality": options.quality}
        if options.format == "jpeg" and options.quality >= 90:
            settings["subsampling"] = 0  # colours as sharp as brightness
        comment = _ASCII + json.dumps(texts).encode()
        if texts and len(comment) <= _MAX_COMMENT:
            exif = Image.Exif()
            exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
            settings["exif"] = exif
        image.save(file, options.format.upper(), **settings)
    return file.getvalue()


def _png_texts(texts: Mapping[str, str]) -> Any:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text)  # as iTXt where it is not Latin-1
    return chunks
