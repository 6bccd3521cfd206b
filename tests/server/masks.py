"""Which tokens a mask allows."""

from __future__ import annotations

import numpy as np

from engines.llm.constraint import Allowed


def allowed_token_ids(mask, vocab_size):
    """The ids whose bit is set, ascending."""
    return np.flatnonzero(Allowed.of(mask, vocab_size).flags)
