"""Why a measurement could not be made."""

from __future__ import annotations

from engines.errors import EngineryError


class BenchmarkFailed(EngineryError):
    """Nothing could be measured; the message is one sentence for the user."""


class PeerFailed(BenchmarkFailed):
    """A command of a peer failed; the message names it and ends with its last words."""
