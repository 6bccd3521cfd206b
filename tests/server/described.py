"""Whether JSON of the wire fits what `/openapi.json` says of it."""

from __future__ import annotations

from typing import Any

import jsonschema

from engines import __version__
from server.openapi import openapi_document

DOCUMENT = openapi_document(__version__)


def check(instance: Any, struct: str) -> None:
    """Raises `jsonschema.ValidationError` where it does not."""
    schema = {"$ref": f"#/components/schemas/{struct}", "components": DOCUMENT["components"]}
    jsonschema.validate(instance, schema)
