"""Everything that can go wrong between a checkpoint and an engine."""

from __future__ import annotations

from engines.errors import EngineryError


class ExportError(EngineryError):
    """The export cannot be done; the message is one sentence for the user."""


class CheckpointError(ExportError):
    """The checkpoint is missing, incomplete, damaged or of a kind that cannot be compiled."""


class OutputError(ExportError):
    """The engine cannot be written: the name is taken, or the disk is full."""


class VerificationFailed(ExportError):
    """The compiled graph is too far from its reference, or the comparison itself failed."""
