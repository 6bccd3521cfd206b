"""How large the keys and values of a model become, for each channel of each head."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.backends.ort_session import open_session
from engines.machine import usable_cores
from engines.manifest import ChatSpec
from export.calibration import prompt_inputs

FloatArray = NDArray[np.float32]

MARGIN = 1.25  # room above what was seen; what is beyond it is cut off
_LEVELS = 127


def measure_ranges(
    graph: Path, spec: ChatSpec, sequences: Iterable[list[int]], rotary_width: int
) -> dict[str, FloatArray]:
    """The name of each state -> the largest magnitudes that it was given, [heads, width].

    Args:
        graph: A graph whose states are float32.
        spec: Its states are keys and values alone.
        sequences: Token ids, each of at most `max_context`.
        rotary_width: The numbers of each head that are rotated.
    """
    session = open_session(graph, usable_cores())
    ranges = {
        state.input: np.zeros((state.heads, state.width), np.float32) for state in spec.states
    }
    for ids in sequences:
        inputs = prompt_inputs(spec, ids)
        outputs = session.run([state.output for state in spec.states], inputs)
        for state, held in zip(spec.states, outputs, strict=True):
            is_key = state.input.endswith(".key")
            found = _magnitudes(held[0], rotary_width if is_key else 0)
            np.maximum(ranges[state.input], found, out=ranges[state.input])
    return ranges


def scale_of(magnitudes: FloatArray) -> FloatArray:
    """The step between two values of int8, for channels that become so large."""
    # A channel that stays zero has any scale but zero.
    scale: FloatArray = np.where(magnitudes > 0, magnitudes * (MARGIN / _LEVELS), 1)
    return scale.astype(np.float32)


def _magnitudes(held: FloatArray, rotary_width: int) -> FloatArray:
    """Of [heads, rows, width] over all rows, as large as a rotation by any angle can make them.

    The position of a token turns two channels of a key into each other, some of them so slowly that
    short texts never show it. The length of the pair is the same at every position.
    """
    magnitudes: FloatArray = np.abs(held)
    half = rotary_width // 2
    pair = np.hypot(held[..., :half], held[..., half:rotary_width])
    magnitudes[..., :half] = magnitudes[..., half:rotary_width] = pair
    largest: FloatArray = magnitudes.max(1)
    return largest
