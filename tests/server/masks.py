"""Which tokens a mask allows."""

from __future__ import annotations

import numpy as np


def allowed_token_ids(mask, vocab_size):
    """The ids whose bit is set, ascending."""
    bits = np.unpackbits(mask.view(np.uint8), count=vocab_size, bitorder="little")
    return np.flatnonzero(bits)
