"""Smooth a checkpoint's tensors by what a first engine of them computed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from engines.manifest import ChatSpec, Target
from engines.reports import Smoothing
from export.calibration import calibration_sequences
from export.errors import ExportError
from export.precision import Layout, NodePrecision
from export.progress import Advance
from export.quantized.tensors import QuantizedTensorFiles
from export.qwen.config import DecoderConfig
from export.safetensors_file import FloatArray
from export.smoothing.factors import Choice, choose_factors
from export.smoothing.groups import Group, find_groups
from export.smoothing.measure import Activations, measure_activations
from export.smoothing.tensors import Scaling, combine, scale_all
from export.tensor_files import TensorFiles

_TRIED_ROWS = 512  # of each matrix, for the error


def check_smoothing(
    precision: Layout,
    decode_precision: Layout | None,
    target: Target,
    config: DecoderConfig,
    tensors: TensorFiles,
) -> None:
    """Refuse to smooth what cannot be.

    Raises:
        ExportError: It says why.
    """
    problem = None
    if target != "ort-cpu":
        problem = f"--target is {target}, where activations are not rounded"
    elif precision != "int8":
        problem = f"the weights are {precision}, and only int8 by rows gains by it"
    elif decode_precision is not None:
        problem = f"the steps of answers are {decode_precision}, whose blocks of weights it spreads"
    elif isinstance(tensors, QuantizedTensorFiles):
        problem = f"the checkpoint has its weights quantized ({tensors.description})"
    elif config.delta_net is not None:
        problem = "the model has Gated DeltaNet layers, which it was not made for"
    if problem is not None:
        raise ExportError(f"--smooth was asked for, but {problem}: leave it out")
    if find_spec("onnxruntime") is None:
        raise ExportError(
            "--smooth was asked for, but ONNX Runtime, which measures activations, is not "
            "installed: pip install 'enginery[cpu]'"
        )


def smooth(
    engine_dir: Path,
    spec: ChatSpec,
    config: DecoderConfig,
    precision: NodePrecision,
    tensors: TensorFiles,
    texts: tuple[str, ...],
    advance: Advance,
) -> tuple[TensorFiles, Smoothing]:
    """The tensors to compile instead, equal in what they compute, and what to say of them.

    Args:
        engine_dir: Holds the engine compiled of the tensors as they are.
        spec: Of that engine.
        config: The decoder's shape.
        precision: The layouts of its nodes.
        tensors: The checkpoint's.
        texts: What the engine reads while it is measured.
        advance: Told each group that was looked at.
    """
    groups = find_groups(config, precision)
    sequences = calibration_sequences(engine_dir, spec, texts)
    measured = measure_activations(engine_dir, spec, groups, sequences)
    scalings: dict[str, Scaling] = {}
    choices = []
    for group, activations in zip(groups, measured, strict=True):
        choice = _choose(group, activations, tensors, precision.int8_max)
        choices.append(choice)
        if choice.factors is not None:
            maker = scalings.get(group.maker)
            scalings[group.maker] = combine(maker, np.reciprocal(choice.factors), None)
            for reader in group.readers:
                scalings[reader] = combine(scalings.get(reader), None, choice.factors)
        advance(1, group.values)
    return scale_all(tensors, scalings), _report(choices)


def _choose(group: Group, activations: Activations, tensors: TensorFiles, int8_max: int) -> Choice:
    parts = [_looked_at(tensors, name) for name in group.readers]
    largest = np.max([largest for largest, _ in parts], axis=0)
    rows = np.concatenate([rows for _, rows in parts])
    return choose_factors(activations.largest, largest, activations.rows, rows, int8_max)


def _looked_at(tensors: TensorFiles, name: str) -> tuple[FloatArray, FloatArray]:
    """The magnitude of each column, and some rows."""
    num_rows, num_columns = tensors.shape(name)
    step = max(1, num_rows // _TRIED_ROWS)
    largest, rows = np.zeros(num_columns, np.float32), []
    for start, block in tensors.row_blocks(name):
        np.maximum(largest, np.abs(block).max(0), out=largest)
        rows.append(block[-start % step :: step])
    return largest, np.concatenate(rows)


def _report(choices: Sequence[Choice]) -> Smoothing:
    return Smoothing(
        num_groups=len(choices),
        num_smoothed=sum(choice.factors is not None for choice in choices),
        error=float(np.mean([choice.error for choice in choices])),
        smoothed_error=float(np.mean([choice.smoothed_error for choice in choices])),
    )
