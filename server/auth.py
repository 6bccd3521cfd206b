"""Who may call: Bearer keys and Basic authentication, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from falcon.asgi import Request, Response

from server.errors import ApiError
from server.images.files import IMAGE_FILES

_READING = frozenset({"GET", "HEAD"})
_OPEN_PATHS = frozenset({"/health", "/ready"})


class Authentication:
    """A Falcon middleware that answers 401 unless a request shows a key or a password it knows.

    With neither keys nor a password, everybody may call and any Authorization header is accepted.

    Args:
        api_keys: Each of them opens the server, as `Authorization: Bearer KEY`.
        user_password: `USER:PASSWORD`, which opens it as Basic authentication.
    """

    def __init__(self, api_keys: Iterable[str] = (), user_password: str | None = None) -> None:
        self._key_digests = [_digest(key.encode()) for key in api_keys]
        self._password_digest = None if user_password is None else _digest(user_password.encode())
        schemes = ['Bearer realm="enginery"'] if self._key_digests else []
        if self._password_digest is not None:
            schemes.append('Basic realm="enginery", charset="UTF-8"')
        self._challenge = ", ".join(schemes)

    async def process_request(self, req: Request, resp: Response) -> None:
        """Let the request through or raise a 401."""
        if not self._challenge or req.path in _OPEN_PATHS or req.method == "OPTIONS":
            return
        if req.path.startswith(IMAGE_FILES) and req.method in _READING:
            return  # browsers show pictures by URL alone, and nobody can guess one
        header = req.get_header("Authorization")
        if header is None and (key := req.get_header("X-Api-Key")) is not None:
            header = f"Bearer {key}"  # as Anthropic's clients send it
        if header is None:
            raise self._refusal("This server needs an API key: send `Authorization: Bearer KEY`.")
        scheme, _, credentials = header.strip().partition(" ")
        if not self._is_known(scheme.lower(), credentials.strip()):
            raise self._refusal("Incorrect API key provided.")

    def _is_known(self, scheme: str, credentials: str) -> bool:
        if scheme == "bearer" and credentials:
            given = _digest(credentials.encode())
            # All keys are compared, whichever matches: the time says nothing.
            return sum(hmac.compare_digest(given, digest) for digest in self._key_digests) > 0
        if scheme == "basic" and self._password_digest is not None:
            try:
                given = _digest(base64.b64decode(credentials, validate=True))
            except (binascii.Error, ValueError):
                return False
            return hmac.compare_digest(given, self._password_digest)
        return False

    def _refusal(self, message: str) -> ApiError:
        headers = {"WWW-Authenticate": self._challenge}
        return ApiError(401, message, code="invalid_api_key", headers=headers)


def _digest(secret: bytes) -> bytes:
    """Digests have one length, so that comparing them does not tell that of the key."""
    return hashlib.sha256(secret).digest()
