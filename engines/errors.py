"""Everything that can go wrong between a caller and an engine.

EngineryError
├── EngineError              a compiled engine cannot be used
│   ├── EngineNotFound       no engine.json where one was named
│   ├── InvalidManifest      engine.json cannot be read or contradicts itself
│   ├── EngineCorrupt        a file is missing, truncated or changed
│   └── EngineIncompatible   built for another target, format or runtime
├── RequestError             a request cannot be served as it stands
│   ├── InvalidRequest       a field has a value that no engine accepts
│   ├── ContextLengthExceeded
│   └── QueueFull            try again later
└── RunFailed                the runtime failed; the engine has to be closed
"""

from __future__ import annotations


class EngineryError(Exception):
    """The base of all errors; the message is one sentence for the user."""


class EngineError(EngineryError):
    """A compiled engine cannot be used."""


class EngineNotFound(EngineError):
    """No `engine.json` lies where one was named."""


class InvalidManifest(EngineError):
    """`engine.json` cannot be read or contradicts itself."""


class EngineCorrupt(EngineError):
    """A file of the engine is missing, truncated or changed."""


class EngineIncompatible(EngineError):
    """The engine was built for another target, format or runtime."""


class RequestError(EngineryError):
    """A request cannot be served as it stands; `param` names the field, where one is to blame."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """A field has a value that the engine does not accept."""


class ContextLengthExceeded(RequestError):
    """The prompt, or the prompt and `max_tokens`, do not fit into the engine's context."""


class QueueFull(RequestError):
    """As many requests wait as the queue holds."""


class RunFailed(EngineryError):
    """The runtime rejected a batch; the caches are undefined and the engine has to be closed."""
