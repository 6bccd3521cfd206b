"""What an engine's activations become while it reads: magnitudes of channels, and some rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.backends.ort_session import open_session
from engines.machine import usable_cores
from engines.manifest import ChatSpec
from export.calibration import prompt_inputs
from export.safetensors_file import FloatArray
from export.smoothing.groups import Group

_KEPT_ROWS = 8  # of each sequence, evenly over it
_WATCHED_GRAPH = "watched.onnx"


@dataclass(slots=True)
class Activations:
    """Of one group.

    Attributes:
        largest: The magnitude of each channel over every second sequence. [K]
        rows: Some rows of the other sequences. [T, K]
    """

    largest: FloatArray
    rows: FloatArray


def measure_activations(
    engine_dir: Path, spec: ChatSpec, groups: Sequence[Group], sequences: Sequence[list[int]]
) -> list[Activations]:
    """Let the engine read sequences of token ids; what it computes in int8 is near enough.

    Args:
        engine_dir: Holds the graph with its weights, and for a while another graph.
        spec: Its states are float32.
        groups: Whose activations to measure.
        sequences: Two at least.
    """
    watched = engine_dir / _WATCHED_GRAPH
    try:
        names = _write_watched(engine_dir / spec.graph, watched, groups)
        session = open_session(watched, usable_cores())
        largest: list[list[FloatArray]] = [[] for _ in groups]
        rows: list[list[FloatArray]] = [[] for _ in groups]
        for index, ids in enumerate(sequences):
            outputs = session.run(names, prompt_inputs(spec, ids))
            values = dict(zip(names, outputs, strict=True))
            for number, group in enumerate(groups):
                found = _values(values, group)  # [S, K]
                if index % 2:
                    largest[number].append(np.abs(found).max(0))
                else:
                    kept = np.linspace(0, len(found) - 1, min(_KEPT_ROWS, len(found))).astype(int)
                    rows[number].append(found[kept])
        return [
            Activations(np.max(sizes, axis=0), np.concatenate(parts))
            for sizes, parts in zip(largest, rows, strict=True)
        ]
    finally:
        watched.unlink(missing_ok=True)


def _values(values: dict[str, FloatArray], group: Group) -> FloatArray:
    found = values[group.values]
    if group.row_scale is not None:
        found = found * values[group.row_scale]
    return found.reshape(-1, found.shape[-1])


def _write_watched(graph: Path, watched: Path, groups: Sequence[Group]) -> list[str]:
    """The graph with the groups' activations as further outputs; returns their names."""
    model = ir.load(graph)
    scales = (group.row_scale for group in groups if group.row_scale is not None)
    names = list(dict.fromkeys([*(group.values for group in groups), *scales]))
    found = {value.name: value for node in model.graph for value in node.outputs}
    for name in names:
        found[name].type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(found[name])
    ir.save(model, watched)
    return names
