"""Types whose limits are described to clients, and checked where an error can say more."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta


def described(**schema: object) -> Meta:
    """Keywords of JSON schema for `/openapi.json` alone."""
    return Meta(extra_json_schema=schema)


NonEmptyText = Annotated[str, described(minLength=1)]
TokenId = Annotated[int, described(minimum=0)]
TokenIds = Annotated[list[TokenId], described(minItems=1)]

# A text, token ids, or a list of either.
Prompts = NonEmptyText | Annotated[list[TokenId | NonEmptyText | TokenIds], described(minItems=1)]
